"""Probing: the header's facts for every kind of video, and a clear error for what is none.

Guards against a plan made of what is no video, and an error that does not say what is wrong.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from actors import media
from actors.objects import RangedReader, open_object
from actors.probe import _tagged_end_s, probe
from infra.hostile.bombs import far_apart
from longreel.errors import StorageError, VideoError
from tests import videos
from tests.videos import HEALTHY, Clip


@pytest.fixture(scope="module", params=sorted(HEALTHY))
def clip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Clip:
    return HEALTHY[request.param](tmp_path_factory.mktemp(request.param))


def test_facts_of_every_kind(clip: Clip) -> None:
    """Guards against a wrong length, size or turn: all plans and clocks follow from these."""
    info = probe(clip.uri)
    assert info.duration_s == pytest.approx(float(clip.end_s), abs=0.0401)
    upright = (97, 65) if clip.path.name == "odd.mkv" else (videos.WIDTH, videos.HEIGHT)
    assert (info.width, info.height) == upright
    assert info.rotation == clip.rotation
    if "vfr" not in clip.path.name:
        assert info.source_fps == pytest.approx(videos.RATE, rel=0.05)
    assert info.size_bytes == clip.path.stat().st_size
    assert info.uri == clip.uri
    assert info.etag


def test_keyframes_are_at_or_just_after_real_ones(clip: Clip) -> None:
    """Guards against cuts in decoding time, which lie before the keyframe they mean."""
    info = probe(clip.uri)
    if clip.path.suffix in (".ts",):
        assert info.keyframes_s == ()
        return
    shown = [float(s) for s in clip.shown_s]
    assert list(info.keyframes_s) == sorted(set(info.keyframes_s))
    assert all(0 <= time < info.duration_s for time in info.keyframes_s)
    if "vfr" in clip.path.name:  # the distance of the two clocks varies with the frames
        return
    assert all(min(abs(time - s) for s in shown) < 1e-6 for time in info.keyframes_s)
    if "h264" in info.codec and len(shown) == 100 and "gop" not in clip.path.name:
        assert info.keyframes_s == pytest.approx([0.48 * i for i in range(9)])


def test_rotation_as_phones_write_it(tmp_path: Path) -> None:
    """Guards against a turn in the wrong direction, by the mp4 specification's own matrix."""
    plain = videos.write_video(tmp_path / "a.mp4", n_frames=5, options=videos.x264())
    info = probe(videos.write_tkhd_rotation(plain, tmp_path / "b.mp4").uri)
    assert (info.rotation, info.width, info.height) == (90, videos.HEIGHT, videos.WIDTH)


def test_a_video_without_length_is_scanned(tmp_path: Path) -> None:
    """Guards against live recordings (no duration, no index) that cannot be planned."""
    clip = videos.write_video(
        tmp_path / "live.webm", "libvpx", n_frames=200,
        options={"deadline": "realtime", "cpu-used": "8"}, container_options={"live": "1"},
    )  # fmt: skip
    info = probe(clip.uri)
    assert info.duration_s == pytest.approx(8.0)
    assert len(info.keyframes_s) == 17


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
@pytest.mark.parametrize("tagged", [True, False])
def test_longer_sound_does_not_lengthen_the_video(
    tmp_path: Path, suffix: str, tagged: bool
) -> None:
    """Guards against segments after the last picture, which could only fail."""
    clip = videos.write_video(
        tmp_path / f"a{suffix}", n_frames=50, options=videos.x264(), audio_s=6.0
    )
    if not tagged:
        clip.path.write_bytes(clip.path.read_bytes().replace(b"DURATION", b"XURATION"))
    assert probe(clip.uri).duration_s == pytest.approx(2.0)


def expect(kind: str, path: Path, *words: str) -> None:
    with pytest.raises(VideoError) as caught:
        probe(str(path))
    assert caught.value.kind == kind
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)


def test_empty(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"")
    expect("Empty", path, "no bytes")


@pytest.mark.parametrize("name", ["a.mp4", "a.txt", "a.mkv"])
def test_text_is_not_a_video(tmp_path: Path, name: str) -> None:
    """Guards against demuxers that take text for subtitles or terminal art, by its name."""
    path = tmp_path / name
    path.write_text("Dear diary, today we saw no video at all.\n" * 50)
    expect("NotAVideo", path)


def test_noise_and_stills_are_not_videos(tmp_path: Path) -> None:
    noise, still = tmp_path / "noise.mp4", tmp_path / "still.mp4"
    noise.write_bytes(np.random.default_rng(0).bytes(50_000))
    Image.fromarray(videos.draw(1)).save(still, "PNG")
    expect("NotAVideo", noise)
    expect("NotAVideo", still, "still image")


def test_playlists_open_nothing_else(tmp_path: Path) -> None:
    """Guards against an object that makes a worker open its own files or addresses."""
    secret = videos.write_video(tmp_path / "secret.ts", n_frames=10, options=videos.x264())
    hls, concat = tmp_path / "a.mp4", tmp_path / "b.mp4"
    hls.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{secret.path}\n#EXT-X-ENDLIST\n")
    concat.write_text(f"ffconcat version 1.0\nfile {secret.path.name}\n")
    expect("NotAVideo", hls)
    expect("NotAVideo", concat)


def test_sound_alone_and_cover_art_are_no_video(tmp_path: Path) -> None:
    expect("NoVideoStream", videos.write_audio_only(tmp_path / "a.m4a"), "no video")
    expect("NoVideoStream", videos.write_cover_art(tmp_path / "b.m4a"), "cover art")


def test_mp4_without_its_index_is_truncated(tmp_path: Path) -> None:
    """Guards against 'invalid data' for the commonest broken upload."""
    clip = videos.write_video(tmp_path / "a.mp4", options=videos.x264())
    expect("Truncated", videos.truncate(clip, tmp_path / "b.mp4", 0.5).path, "moov", "cut short")
    expect("Truncated", videos.truncate(clip, tmp_path / "c.mp4", 0.95).path, "moov")


def test_no_decodable_frame_is_damaged(tmp_path: Path) -> None:
    clip = videos.write_video(tmp_path / "a.mp4", options=videos.x264())
    data = bytearray(clip.path.read_bytes())
    start, end = data.index(b"mdat") + 4, data.index(b"moov") - 4
    data[start:end] = bytes(end - start)
    clip.path.write_bytes(data)
    expect("Damaged", clip.path, "no frame")


def test_storage_errors_pass_through(tmp_path: Path) -> None:
    """Guards against a vanished object reported as a broken video."""
    with pytest.raises(StorageError) as caught:
        probe(str(tmp_path / "gone.mp4"))
    assert caught.value.kind == "NotFound"


@pytest.mark.parametrize("faststart", [True, False])
def test_probe_reads_a_small_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faststart: bool
) -> None:
    """Guards against a probe that reads whole objects."""
    clip = videos.write_video(
        tmp_path / "a.mp4", n_frames=400, size=(288, 192), options={**videos.x264(), "crf": "1"},
        container_options={"movflags": "faststart"} if faststart else {},
    )  # fmt: skip
    readers: list[RangedReader] = []

    def counted(uri: str, etag: str | None = None, **options: Any) -> RangedReader:
        readers.append(open_object(uri, etag, **options))
        return readers[-1]

    monkeypatch.setattr(media, "open_object", counted)
    info = probe(clip.uri)
    assert Fraction(info.duration_s) == 16
    assert sum(r.bytes_read for r in readers) < 0.2 * info.size_bytes


def test_a_length_that_no_video_has_is_refused(tmp_path: Path) -> None:
    """Guards against a plan of a thousand million segments, which no memory holds."""
    path = tmp_path / "long.mkv"
    path.write_bytes(far_apart("matroska", 2**45))
    with pytest.raises(VideoError, match=r"TooLarge: times say that it lasts \d+ days") as refused:
        probe(str(path))
    assert refused.value.kind == "TooLarge"


@pytest.mark.parametrize(
    ("tag", "end_s"),
    [
        ("00:01:23.456000000", Fraction(83456, 1000)),
        ("00:00:01", Fraction(1)),
        ("00:00:1/0", None),
        ("00:00:1e400", None),
        ("00:00:1e999999999", None),
        ("-1:00:00", None),
        ("9" * 5000 + ":00:00", None),
        ("soon", None),
    ],
)
def test_a_tag_is_a_length_or_nothing(tag: str, end_s: Fraction | None) -> None:
    """Guards against a job that ends, or hangs, by what one file says of itself."""
    assert _tagged_end_s({"DURATION": tag}) == end_s
