"""Files that mean harm, to the decoding processes that the gateway uses: each ends in pixels or in
one 4xx, soon, within its memory, and nothing that it names is opened.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from bench.hostile_media import FPS, SIDE, offer
from infra.hostile.bombs import bombs
from infra.hostile.canary import Canary
from infra.hostile.mutations import Hostile, mutated
from infra.hostile.references import references
from infra.hostile.seeds import seeds
from serve.decoding.calls import decode_pictures, decode_video, open_remote
from serve.live.items import SessionError
from serve.routes.context import ApiSettings
from tests.serve.pieces import piece_frames
from tests.videos import write_video, x264

SETTINGS = ApiSettings()
FORMATS = {"mp4", "mov", "mkv", "webm", "avi", "ts", "flv", "gif", "jpeg", "png", "webp"}


@pytest.mark.slow
def test_the_same_number_is_the_same_file() -> None:
    """Guards against a failure that nobody can look at again, and against a corpus of one kind."""
    first = list(mutated(seeds(), 60))
    assert first == list(mutated(seeds(), 60))
    assert first != list(mutated(seeds(), 60, seed=1))
    assert set(seeds()) >= FORMATS
    healthy = set(seeds().values())
    assert sum(file.data not in healthy for file in first) > 50


@pytest.mark.slow
def test_damaged_files_end_in_pixels_or_an_error() -> None:
    """Guards the service against what a fuzzer would find in its way of decoding."""
    found = asyncio.run(offer(mutated(seeds(), 600), SETTINGS))
    assert found.wrong == []
    assert found.died == []
    assert found.slow == []
    assert set(found.codes) == {
        "accepted",
        "media_error",
        "media_too_large",
        "unsupported_media_type",
    }
    assert min(found.codes["accepted"], found.codes["media_error"]) > 50
    assert found.most_bytes < SETTINGS.decode_memory_bytes


@pytest.mark.slow
def test_bombs_are_refused_or_harmless() -> None:
    """Guards memory and cores against little that becomes much."""
    # What would take longer is ended; on a machine under load that may be others as well.
    found = asyncio.run(offer(bombs(), ApiSettings(decode_timeout_s=2)))
    assert found.wrong == []
    assert found.died == []
    assert found.most_bytes < SETTINGS.decode_memory_bytes
    assert found.codes["media_too_large"] >= 4
    assert "jpeg of a thousand scans" in found.slow


@pytest.mark.slow
def test_nothing_that_a_file_names_is_opened(tmp_path: Path) -> None:
    """Guards files of the service, and addresses that only it can reach, against playlists, session
    descriptions and references within containers, uploaded or fetched.
    """
    secret = write_video(tmp_path / "secret.ts", options=x264()).path
    healthy = seeds()
    own = [pixels for _, pixels in piece_frames(healthy["mov"], SIDE, FPS, SETTINGS)]

    async def scenario(canary: Canary, files: list[Hostile]) -> Counter[str]:
        outcomes: Counter[str] = Counter()
        for file in files:
            with tempfile.NamedTemporaryFile(dir=tmp_path) as kept:
                kept.write(file.data)
                kept.flush()
                ways: list[Callable[[], Coroutine[Any, Any, Any]]] = [
                    partial(_frames_of, kept.name),
                    partial(decode_video, file.data, SIDE, FPS, SETTINGS),
                    partial(decode_pictures, [file.data], SIDE, SETTINGS),
                ]
                for way in ways:
                    try:
                        found = await way()
                    except SessionError as error:
                        outcomes[error.code] += 1
                        continue
                    # Pictures that lie elsewhere are looked for in the file itself.
                    assert file.name.startswith("mov whose pictures"), file.name
                    for (_, pixels), wanted in zip(found, own, strict=True):
                        assert np.array_equal(pixels, wanted), file.name
        assert canary.hits == []
        return outcomes

    with Canary() as canary:
        at = f"127.0.0.1:{canary.port}"
        targets = [f"http://{at}/x.ts", f"tcp://{at}", f"file://{secret}", str(secret)]
        files = list(references(targets, healthy))
        outcomes = asyncio.run(scenario(canary, files))
        assert set(outcomes) == {"unsupported_media_type", "media_error"}
        # That the bait works: without its options FFmpeg goes where it is sent.
        (concat,) = [f for f in files if f.name == f"ffconcat to {targets[0]}"]
        bait = tmp_path / "bait.ffconcat"
        bait.write_bytes(concat.data)
        open_to_all = {"safe": "0", "protocol_whitelist": "file,http,tcp"}
        with pytest.raises(av.FFmpegError), av.open(str(bait), options=open_to_all):
            pass
        assert canary.hits


async def _frames_of(name: str) -> list[Any]:
    remote = await open_remote(name, FPS, SETTINGS)
    return [each async for part in remote.decode(SIDE) for each in part]
