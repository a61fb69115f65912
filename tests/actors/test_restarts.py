"""Where a stream begins anew: what says so is the picture, not the container."""

from __future__ import annotations

from pathlib import Path

import av
import pytest

from actors.restarts import restarts_of
from tests.videos import HEALTHY, write_video, x264

_HEVC = "keyint=12:min-keyint=12:bframes=3:pools=none:frame-threads=1:log-level=none"
_CLOSED = {"preset": "ultrafast", "x265-params": f"{_HEVC}:open-gop=0"}
_REFRESH = "keyint=1000:intra-refresh=1:bframes=0:threads=1:rc-lookahead=10"


def keyframes(path: Path) -> list[bool]:
    """Of each keyframe packet, whether the stream begins anew with it."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        restarts = restarts_of(context.name, context.extradata or b"")
        assert restarts is not None
        return [
            restarts.at(bytes(packet)) for packet in container.demux(stream) if packet.is_keyframe
        ]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_closed_gops_begin_anew(tmp_path: Path, suffix: str) -> None:
    """Guards the time saved, whatever divides the units of a packet."""
    h264 = write_video(tmp_path / f"a{suffix}", options=x264())
    assert keyframes(h264.path) == [True] * 9
    hevc = write_video(tmp_path / f"b{suffix}", "libx265", n_frames=36, options=_CLOSED)
    assert keyframes(hevc.path) == [True] * 3


@pytest.mark.parametrize("kind", ["h264_open_gop", "h264_open_gop_ts", "hevc"])
def test_open_gops_do_not(tmp_path: Path, kind: str) -> None:
    """Guards against pictures whose references were left out."""
    found = keyframes(HEALTHY[kind](tmp_path).path)
    assert found[0]
    assert len(found) > 2
    assert not any(found[1:])


def test_bit_by_bit_refreshed_streams_do_not(tmp_path: Path) -> None:
    """Guards against taking a point of recovery, which refers to what was before, for a start."""
    clip = write_video(tmp_path / "a.ts", options={**x264(), "x264-params": _REFRESH})
    found = keyframes(clip.path)
    assert not any(found[1:])


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\0\0\1", b"\0\0\1", b"\xff" * 9, bytes(64)])
def test_garbage_is_no_beginning(data: bytes) -> None:
    """Guards against damaged packets that end a decoding process, or pass for a start."""
    record = b"\1" + bytes(3) + b"\xff" + bytes(16) + b"\xff"
    for codec in ("h264", "hevc"):
        for header in (b"", record):
            restarts = restarts_of(codec, header)
            assert restarts is not None
            assert not restarts.at(data)
    assert restarts_of("vp9", b"") is None
