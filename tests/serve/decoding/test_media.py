"""What clients send becomes the pixels that bulk jobs would make, and nothing beyond the limits.

Guards against a session that sees other pixels than a job would, and media that takes more than its
limits.
"""

from __future__ import annotations

import io
import struct
import tempfile
import zlib
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image, ImageOps

from actors.decode import decode_segment
from actors.grid import grid_size
from actors.media import open_media
from actors.probe import probe
from serve.decoding import media
from serve.decoding.media import MediaError, decode_image, decode_stretch, kind_of, open_video
from serve.live.items import SessionError
from serve.routes.context import ApiSettings
from tests.serve.pieces import piece_frames
from tests.videos import (
    HEALTHY,
    damage,
    draw,
    read_number,
    truncate,
    write_audio_only,
    write_recording,
    write_video,
    x264,
)

SIDE, FPS = 96, 2.0
SETTINGS = ApiSettings()


def encoded(picture: Any, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("name", HEALTHY)
def test_live_pixels_are_bulk_pixels(name: str, tmp_path: Path) -> None:
    """Guards against a second way to decode, whose pixels or times would differ from a job's."""
    clip = HEALTHY[name](tmp_path)
    info = probe(clip.uri)
    count = grid_size(info.duration_s, FPS)
    times, frames = [], []
    for first in range(0, count, 3):  # in segments, as jobs go through a video
        end = min(count, first + 3)
        part = decode_segment(
            clip.uri,
            etag=info.etag,
            origin_pts=info.origin_pts,
            first_index=first,
            end_index=end,
            fps=FPS,
            size=(SIDE, SIDE),
            is_last=end == count,
            duration_s=info.duration_s,
        )
        times += part.times_s.tolist()
        frames += list(part.frames)
    live = piece_frames(clip.path.read_bytes(), SIDE, FPS, SETTINGS)
    assert [time_s for time_s, _ in live] == times
    assert len(live) >= 1
    for (_, pixels), bulk in zip(live, frames, strict=True):
        assert np.array_equal(pixels, bulk)


def test_a_browsers_recording_shows_its_pictures(tmp_path: Path) -> None:
    """Guards against needing a length, an index or a start at 0, which MediaRecorder leaves out."""
    for codec in ("libvpx", "libvpx-vp9"):
        clip = write_recording(tmp_path / f"{codec}.webm", codec, n_frames=60)
        found = piece_frames(clip.path.read_bytes(), SIDE, FPS, SETTINGS)
        assert [(t, read_number(p)) for t, p in found] == [
            (0.0, 0), (0.5, 12), (1.0, 25), (1.5, 37), (2.0, 50),
        ]  # fmt: skip


def test_an_mp4_with_its_index_anywhere_shows_its_pictures(tmp_path: Path) -> None:
    """Guards against mp4 read front to back: the index may come last, or piece by piece."""
    last = write_video(tmp_path / "last.mp4", options=x264()).path.read_bytes()
    parts = HEALTHY["h264_fragmented"](tmp_path).path.read_bytes()
    assert last.index(b"mdat") < last.index(b"moov")
    assert parts.count(b"moof") > 1
    for data in (last, parts):
        found = piece_frames(data, SIDE, FPS, SETTINGS)
        assert [read_number(p) for _, p in found] == [0, 12, 25, 37, 50, 62, 75, 87]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
def test_pictures_of_every_kind(kind: str) -> None:
    data = encoded(draw(1234), kind)
    assert kind_of(data) == "image"
    pixels = decode_image(data, SIDE, SETTINGS)
    assert pixels.shape == (SIDE, SIDE, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    if kind != "GIF":  # whose colours are too few for the numbers to be checked after scaling
        assert read_number(pixels) == 1234


def test_a_picture_is_scaled_as_a_videos_frame(tmp_path: Path) -> None:
    """Guards against a scaler of its own: the same lossless frame, sent either way, is the same."""
    clip = write_video(tmp_path / "a.mov", "png", n_frames=1, size=(321, 202), pix_fmt="rgb24")
    ((_, pixels),) = piece_frames(clip.path.read_bytes(), SIDE, FPS, SETTINGS)
    assert np.array_equal(decode_image(encoded(draw(0, 321, 202)), SIDE, SETTINGS), pixels)


def test_frames_sent_as_jpegs_are_those_of_a_video_of_jpegs(tmp_path: Path) -> None:
    """Guards against colours that differ between a camera's frames and its recording."""
    clip = HEALTHY["mjpeg_avi"](tmp_path)
    with av.open(clip.uri) as container:
        jpegs = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    bulk = piece_frames(clip.path.read_bytes(), SIDE, 25.0, SETTINGS)
    assert len(jpegs) == len(bulk) == 60
    for data, (_, pixels) in zip(jpegs, bulk, strict=True):
        assert np.array_equal(decode_image(data, SIDE, SETTINGS), pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_phones_picture_is_upright(kind: str, orientation: int) -> None:
    """Guards against pictures that lie on their side because EXIF is not read, or read twice."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    data = encoded(draw(77, 120, 120), kind, exif=exif, **options)
    with Image.open(io.BytesIO(data)) as image:
        upright = encoded(ImageOps.exif_transpose(image).convert("RGB"))
    found = decode_image(data, SIDE, SETTINGS).astype(int)
    wanted = decode_image(upright, SIDE, SETTINGS).astype(int)
    # JPEG's rounding, and that of a scaler that goes the other way.
    assert np.abs(found - wanted).mean() <= 2


def test_transparent_and_deep_pictures_are_as_seen() -> None:
    """Guards against hidden colours behind transparency, and against 16 bits cut to white."""
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert (decode_image(encoded(clear), 8, SETTINGS) == 255).all()
    grey = Image.fromarray(np.full((8, 8), 0x8000, np.uint16))
    assert np.abs(decode_image(encoded(grey), 8, SETTINGS).astype(int) - 127).max() <= 1


def test_a_cmyk_jpeg_has_its_colours() -> None:
    """Guards print pictures, which FFmpeg's decoder shows inverted or not at all."""
    data = encoded(Image.new("RGB", (8, 8), (200, 30, 60)).convert("CMYK"), "JPEG")
    assert np.abs(decode_image(data, 8, SETTINGS).astype(int) - (200, 30, 60)).max() <= 6


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_pixel_bomb_is_refused_by_its_header() -> None:
    """Guards against memory for 10 gigapixels that a file of 100 bytes promises."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    for side in (8000, 12_000, 100_000):  # below, between and above Pillow's own two limits
        header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        bomb = (
            b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", header)
            + chunk(b"IDAT", b"")
            + chunk(b"IEND", b"")
        )
        with pytest.raises(MediaError) as caught:
            decode_image(bomb, SIDE, SETTINGS)
        assert caught.value.code == "media_too_large"


def test_large_frames_are_refused_wherever_they_begin(tmp_path: Path) -> None:
    """Guards against a video that begins small and turns into a bomb when nobody looks."""
    small = write_video(tmp_path / "a.ts", options=x264()).path.read_bytes()
    large = write_video(tmp_path / "b.ts", options=x264(), size=(640, 480)).path.read_bytes()
    limited = ApiSettings(max_pixels=100 * 100)
    with pytest.raises(MediaError, match=r"640 x 480 pixels, more than 10000") as caught:
        piece_frames(large, SIDE, FPS, limited)
    assert caught.value.code == "media_too_large"
    both = tmp_path / "both.ts"
    both.write_bytes(small + large)
    with open_media(str(both), max_pixels=limited.max_pixels) as opened:
        sizes: set[tuple[int, int]] = set()
        for packet in opened.container.demux(opened.stream):
            try:
                sizes.update((f.width, f.height) for f in opened.stream.decode(packet))
            except (ValueError, OSError):
                continue
    assert sizes == {(96, 64)}


def test_long_videos_and_too_many_frames_are_refused(tmp_path: Path) -> None:
    """Guards against hours of work, or gigabytes of pixels, from one small request."""
    data = write_video(tmp_path / "a.mp4", options=x264()).path.read_bytes()
    with pytest.raises(MediaError, match=r"is 4\.0 s long, more than 3 s") as caught:
        piece_frames(data, SIDE, FPS, ApiSettings(max_video_s=3))
    assert caught.value.code == "media_too_large"
    with pytest.raises(MediaError, match="more than one piece may") as caught:
        piece_frames(data, SIDE, 1e5, SETTINGS)
    assert caught.value.code == "media_too_large"
    for fps in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(SessionError) as wrong:
            piece_frames(data, SIDE, fps, SETTINGS)
        assert wrong.value.code == "invalid_value"


def test_what_is_no_media_is_said_to_be_none(tmp_path: Path) -> None:
    """Guards against playlists and scripts that make a demuxer open other files."""
    for data in (b"", b"hello", b"#EXTM3U\n#EXTINF:1\n/etc/passwd\n", b"ffconcat version 1.0\n"):
        for decode in (
            lambda data: piece_frames(data, SIDE, FPS, SETTINGS),
            lambda data: decode_image(data, SIDE, SETTINGS),
        ):
            with pytest.raises(MediaError) as caught:
                decode(data)
            assert caught.value.code == "unsupported_media_type"
    sound = write_audio_only(tmp_path / "a.m4a").read_bytes()
    with pytest.raises(MediaError, match="sound but no video") as caught:
        piece_frames(sound, SIDE, FPS, SETTINGS)
    assert caught.value.code == "media_error"


def test_broken_media_is_said_where_it_broke(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "a.mp4", options=x264())
    cut = truncate(clip, tmp_path / "cut.mp4", 0.5)
    with pytest.raises(MediaError, match=r"index \(moov\) is missing") as caught:
        piece_frames(cut.path.read_bytes(), SIDE, FPS, SETTINGS)
    assert caught.value.code == "media_error"
    picture = encoded(draw(1), "JPEG")
    with pytest.raises(MediaError, match="the picture cannot be decoded: Trunc") as caught:
        decode_image(picture[: len(picture) // 2], SIDE, SETTINGS)
    assert caught.value.code == "media_error"


def test_a_damaged_video_gives_its_healthy_frames(tmp_path: Path) -> None:
    """Guards against losing minutes for one bad packet, and against showing smeared pictures."""
    clip = write_video(tmp_path / "a.mp4", options=x264(gop=12))
    hurt = damage(clip, tmp_path / "hurt.mp4", 0.4)
    found = piece_frames(hurt.path.read_bytes(), SIDE, FPS, SETTINGS)
    assert 0 < len(found) < 8
    assert all(read_number(p) == clip.number_at(t) for t, p in found)  # type: ignore[arg-type]


def test_a_video_that_cannot_be_read_to_its_end_is_not_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards answers about the first part of a video whose storage failed after it."""
    monkeypatch.setattr(media, "_STRETCH_BYTES", SIDE * SIDE * 3)
    clip = write_video(tmp_path / "a.mp4", options=x264())
    video = open_video(clip.uri, FPS, SETTINGS)
    first, second, *_ = video.stretches(SIDE)
    assert decode_stretch(video, *first, SIDE, SETTINGS).times_s == [0.0]
    clip.path.unlink()
    with pytest.raises(SessionError, match="cannot be read: NotFound") as caught:
        decode_stretch(video, *second, SIDE, SETTINGS)
    assert caught.value.code == "url_unreachable"


def test_noise_never_escapes(tmp_path: Path) -> None:
    """Guards the service against hostile bytes: every failure is a ``MediaError``."""
    rng = np.random.default_rng(0)
    wholes = [
        write_recording(tmp_path / "a.webm").path.read_bytes(),
        write_video(tmp_path / "a.mp4", options=x264()).path.read_bytes(),
        encoded(draw(5), "JPEG"),
        encoded(draw(5), "WEBP"),
        encoded(draw(5)),
    ]
    outcomes = set()
    for whole in wholes:
        for _ in range(30):
            data = bytearray(whole)
            for at in rng.integers(0, len(data), 8):
                data[at] = rng.integers(256)
            try:
                if kind_of(bytes(data)) == "video":
                    piece_frames(bytes(data), SIDE, FPS, SETTINGS)
                else:
                    decode_image(bytes(data), SIDE, SETTINGS)
                outcomes.add("decoded")
            except MediaError as error:
                outcomes.add(error.code)
    assert outcomes >= {"decoded", "media_error"}


def test_nothing_stays_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the disk against a copy of everything that was ever sent."""
    data = write_video(tmp_path / "a.mp4", options=x264()).path.read_bytes()
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    piece_frames(data, SIDE, FPS, SETTINGS)
    with pytest.raises(MediaError):
        piece_frames(data[:2000], SIDE, FPS, SETTINGS)
    assert not list((tmp_path / "temporary").iterdir())


def test_one_thread_decodes(tmp_path: Path) -> None:
    """Guards the gateway's cores: FFmpeg would start one thread per core for each upload."""
    clip = write_video(tmp_path / "a.mp4", options=x264())
    with open_media(clip.uri) as opened:
        assert opened.stream.codec_context.thread_count == 1
    assert open_video(clip.uri, FPS, SETTINGS).frames == 8


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\x00\x00\x00\x20ftypisom", "video"),
        (b"\x00\x00\x00\x14ftypqt  ", "video"),
        (b"\x00\x00\x00\x20ftypavif", None),
        (b"\x00\x00\x00\x18ftypheic", None),
        (b"RIFF\x00\x00\x00\x00AVI LIST", "video"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", None),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "image"),
        (b"\x47" + bytes(187) + b"\x47" + bytes(187), "video"),
        (bytes(4) + b"\x47" + bytes(191) + b"\x47", "video"),
        (b"GET / HTTP/1.1\r\n" + bytes(400), None),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", None),
        (b"%PDF-1.7", None),
    ],
)
def test_kinds_by_their_first_bytes(head: bytes, kind: str | None) -> None:
    assert kind_of(head) == kind
