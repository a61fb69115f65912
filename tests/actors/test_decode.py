"""Decoding segments: what is sampled does not depend on the cuts, and damage stays where it is.

Guards against samples that follow from how a video was cut or decoded, and damage that spreads.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from av.packet import Packet
from av.video.frame import VideoFrame
from PIL import Image

from actors import media, sampler, thumbnails
from actors.decode import DecodedSegment, decode_segment
from actors.grid import exact_fps, grid_size
from actors.objects import RangedReader, open_object
from actors.pictures import PictureMaker, jpeg
from actors.probe import VideoInfo, probe
from actors.segments import plan_segments
from actors.ticks import Wanted
from longreel.errors import StorageError
from tests import videos
from tests.videos import HEALTHY, Clip

SIZE = (40, 56)


def sample(
    info: VideoInfo,
    fps: float,
    first_index: int = 0,
    end_index: int | None = None,
    *,
    threads: int = 1,
    thumbnail_width: int = 320,
) -> DecodedSegment:
    n_grid = grid_size(info.duration_s, fps)
    return decode_segment(
        info.uri,
        etag=info.etag,
        origin_pts=info.origin_pts,
        first_index=first_index,
        end_index=n_grid if end_index is None else end_index,
        fps=fps,
        size=SIZE,
        thumbnail_width=thumbnail_width,
        is_last=end_index is None or end_index == n_grid,
        duration_s=info.duration_s,
        threads=threads,
    )


def in_segments(info: VideoInfo, fps: float, segment_s: float) -> list[DecodedSegment]:
    return [
        sample(info, fps, s.first_index, s.end_index) for s in plan_segments(info, fps, segment_s)
    ]


def numbers(decoded: DecodedSegment) -> list[int]:
    return [videos.read_number(frame) for frame in decoded.frames]


def expected(clip: Clip, decoded: DecodedSegment, fps: float) -> list[int]:
    return [clip.number_at(k / exact_fps(fps)) for k in decoded.indices.tolist()]


@pytest.fixture(scope="module", params=sorted(HEALTHY))
def clip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Clip:
    return HEALTHY[request.param](tmp_path_factory.mktemp(request.param))


@pytest.mark.slow
@pytest.mark.parametrize("fps", [0.5, 2, 7.3, 25])
def test_each_point_shows_the_frame_then_on_screen(clip: Clip, fps: float) -> None:
    """Guards against any neighbour's frame: late clocks, B-frames, held frames, edit lists."""
    info = probe(clip.uri)
    whole = sample(info, fps)
    assert (whole.status, whole.error) == ("ok", None)
    # The container may promise a moment more than its last frame fills.
    shown = [k for k in range(grid_size(info.duration_s, fps)) if k / exact_fps(fps) < clip.end_s]
    assert whole.indices.tolist() == shown
    assert numbers(whole) == expected(clip, whole, fps)
    assert whole.times_s.tolist() == [float(k / exact_fps(fps)) for k in shown]
    assert whole.frames.shape == (len(shown), *SIZE, 3)
    assert whole.frames.dtype == np.uint8


@pytest.mark.slow
@pytest.mark.parametrize("fps", [0.5, 2, 7.3])
@pytest.mark.parametrize("segment_s", [0.3, 0.7, 1.5])
def test_segments_together_are_the_whole(clip: Clip, fps: float, segment_s: float) -> None:
    """Guards against sharding that changes what is sampled: indices, times, pixels, thumbnails."""
    info = probe(clip.uri)
    whole, parts = sample(info, fps), in_segments(info, fps, segment_s)
    assert {part.status for part in parts} == {"ok"}
    assert np.array_equal(np.concatenate([p.indices for p in parts]), whole.indices)
    assert np.array_equal(np.concatenate([p.times_s for p in parts]), whole.times_s)
    assert np.array_equal(np.concatenate([p.frames for p in parts]), whole.frames)
    assert [each for p in parts for each in p.thumbnails] == list(whole.thumbnails)


@pytest.mark.slow
def test_cuts_anywhere_change_nothing(clip: Clip) -> None:
    """Guards against right results only where cuts happen to lie on keyframes."""
    info = probe(clip.uri)
    whole = sample(info, 25)
    for i, k in enumerate(whole.indices.tolist()[::7]):
        alone = sample(info, 25, k, k + 1)
        assert alone.status == "ok"
        assert np.array_equal(alone.frames, whole.frames[7 * i : 7 * i + 1])


@pytest.mark.parametrize("kind", ["h264_open_gop", "hevc", "vp9_webm"])
def test_threads_change_nothing(tmp_path: Path, kind: str) -> None:
    info = probe(HEALTHY[kind](tmp_path).uri)
    assert np.array_equal(sample(info, 7.3, threads=2).frames, sample(info, 7.3).frames)


@pytest.mark.parametrize("kind", ["rotated_90", "rotated_180", "rotated_270", "odd_size"])
def test_thumbnails_are_upright_in_the_video_s_aspect(tmp_path: Path, kind: str) -> None:
    info = probe(HEALTHY[kind](tmp_path).uri)
    decoded = sample(info, 2, thumbnail_width=80)
    assert len(decoded.thumbnails) == len(decoded.indices)
    for encoded, number in zip(decoded.thumbnails, numbers(decoded), strict=True):
        image = Image.open(io.BytesIO(encoded))
        assert image.size == (80, round(80 * info.height / info.width))
        assert videos.read_number(np.asarray(image.convert("RGB"))) == number
    assert len(sample(info, 2, thumbnail_width=0).thumbnails) == 0


def test_thumbnails_are_encoded_when_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against JPEGs that nobody looks at, and pictures kept without bound for them."""
    encoded: list[int] = []

    def counted(picture: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
        encoded.append(int(picture[0, 0, 0]))
        return jpeg(picture)

    monkeypatch.setattr(thumbnails, "jpeg", counted)
    pictures = [np.full((18, 32, 3), number, np.uint8) for number in range(5)]
    kept = thumbnails.Thumbnails(most_bytes=3 * pictures[0].nbytes)
    for picture in pictures:
        kept.add(picture, 2)
    assert encoded == [3, 4]
    assert list(kept) == [jpeg(picture) for picture in pictures for _ in range(2)]
    encoded.clear()
    few = kept.only([1, 9])
    assert (few[0], few[-1]) == (jpeg(pictures[0]), jpeg(pictures[4]))
    assert encoded == [0]
    assert few[:1] == [few[0]]


def test_rotation_as_phones_write_it(tmp_path: Path) -> None:
    """Guards against pictures turned the wrong way, by the mp4 specification's own matrix."""
    plain = videos.write_video(tmp_path / "a.mp4", n_frames=5, options=videos.x264())
    turned = videos.write_tkhd_rotation(plain, tmp_path / "b.mp4")
    upright, clockwise = sample(probe(plain.uri), 25), sample(probe(turned.uri), 25)
    square = [np.asarray(Image.fromarray(f).resize((64, 64))) for f in clockwise.frames]
    for before, after in zip(upright.frames, square, strict=True):
        wanted = np.rot90(np.asarray(Image.fromarray(before).resize((64, 64))), -1)
        assert np.abs(after.astype(int) - wanted.astype(int)).mean() < 12


def test_mirrored_video_is_shown_mirrored(tmp_path: Path) -> None:
    """Guards against front cameras' mirroring taken for half a turn."""
    plain = videos.write_video(tmp_path / "a.mp4", n_frames=5, options=videos.x264())
    mirrored = videos.write_tkhd_matrix(plain, tmp_path / "b.mp4", (-1, 0, 0, 1))
    info = probe(mirrored.uri)
    assert info.rotation == 0
    assert np.array_equal(sample(info, 25).frames, sample(probe(plain.uri), 25).frames[:, :, ::-1])


def test_a_segment_reads_about_its_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against segments that read the object from its start, or all of it."""
    clip = videos.write_video(
        tmp_path / "a.mp4", "mjpeg", n_frames=600, size=(288, 192), audio_s=24.0,
        pix_fmt="yuvj420p", options={"qmin": "1", "qmax": "1"},
    )  # fmt: skip
    readers: list[RangedReader] = []

    def counted(uri: str, etag: str | None = None, **options: Any) -> RangedReader:
        readers.append(open_object(uri, etag, **options))
        return readers[-1]

    info = probe(clip.uri)
    segments = plan_segments(info, 2, 3)
    monkeypatch.setattr(media, "open_object", counted)
    middle = segments[len(segments) // 2]
    assert sample(info, 2, middle.first_index, middle.end_index).status == "ok"
    share = (middle.end_s - middle.start_s) / info.duration_s * info.size_bytes
    # Besides: the header and index, the first packets, and those that end the last frame.
    assert sum(r.bytes_read for r in readers) < share + 100_000 < info.size_bytes / 4


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_damage_costs_what_it_hit_and_no_more(tmp_path: Path, suffix: str) -> None:
    """Guards against a bad sector that ends a video, or garbage sampled as healthy."""
    clip = videos.write_video(
        tmp_path / f"a{suffix}", n_frames=200, options={**videos.x264(gop=25), "crf": "10"}
    )
    broken = videos.damage(clip, tmp_path / f"b{suffix}", 0.4, n_bytes=3000)
    info = probe(broken.uri)
    healthy = dict(zip(range(200), sample(probe(clip.uri), 25).frames, strict=True))
    decoded = sample(info, 25)
    assert decoded.status == "partial"
    assert decoded.error is not None
    assert decoded.error.startswith("Damaged: ")
    assert " s (byte " in decoded.error
    lost = set(range(200)) - set(decoded.indices.tolist())
    assert lost
    assert max(lost) - min(lost) < 75
    wrong = [
        k
        for k, frame in zip(decoded.indices.tolist(), decoded.frames, strict=True)
        if not np.array_equal(frame, healthy[k])
    ]
    # What lies between the first damaged byte and the first one a decoder can notice.
    assert len(wrong) <= 4
    assert all(min(lost) - 4 <= k <= max(lost) for k in wrong)
    statuses = [part.status for part in in_segments(info, 25, 1)]
    assert statuses[0] == statuses[-1] == "ok"
    assert any(status != "ok" for status in statuses)


def test_damage_is_told_alike_whatever_else_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against frames that forget their packet when another run lets go of one like it."""
    clip = videos.write_video(tmp_path / "a.mp4", n_frames=100, options=videos.x264())
    broken = videos.damage(clip, tmp_path / "b.mp4", 0.45, n_bytes=1500)
    info = probe(broken.uri)
    alone = sample(info, 25)
    starts = media.starts_before
    with media.open_media(broken.uri) as other:
        wanted = Wanted(info.origin_pts, 0, 100, exact_fps(25))
        # One packet ahead, its numbers are those that the other run is about to use.
        ahead = sampler.Run(other, wanted, PictureMaker(SIZE, 0, None), 1)
        theirs, _ = next(starts(other, info.origin_pts))

        def beside(of: media.Media, pts: int) -> Iterator[tuple[Iterator[Packet[Any]], bool]]:
            for packets, is_beginning in starts(of, pts):
                pairs = zip(packets, itertools.chain(theirs, itertools.repeat(None)), strict=False)
                yield (
                    (p for p, q in pairs if q is None or ahead._decode(q) is not None),
                    is_beginning,
                )

        monkeypatch.setattr(sampler, "starts_before", beside)
        with_another = sample(info, 25)
    assert alone.error is not None
    assert with_another.error == alone.error
    assert with_another.indices.tolist() == alone.indices.tolist()


def test_everything_damaged_is_failed(tmp_path: Path) -> None:
    """Guards against invented frames where none can be decoded."""
    clip = videos.write_video(tmp_path / "a.mp4", n_frames=75, options=videos.x264(gop=25))
    info = probe(clip.uri)
    data = bytearray(clip.path.read_bytes())
    start, end = data.index(b"mdat") + 4, data.index(b"moov") - 4
    data[start + (end - start) // 2 : end] = bytes(end - start - (end - start) // 2)
    clip.path.write_bytes(data)
    info = probe(clip.uri)
    decoded = sample(info, 2, 5, 6)
    assert (decoded.status, len(decoded.frames), len(decoded.indices)) == ("failed", 0, 0)
    assert str(decoded.error).startswith("Damaged")
    assert sample(info, 2, 0, 2).status == "ok"


@pytest.mark.parametrize(
    ("suffix", "options"),
    [(".mp4", {"movflags": "faststart"}), (".mkv", {})],
)
def test_a_missing_end_is_told_apart(tmp_path: Path, suffix: str, options: dict[str, str]) -> None:
    """Guards against an upload cut short that passes for a short video."""
    clip = videos.write_video(
        tmp_path / f"a{suffix}", n_frames=250, options=videos.x264(), container_options=options
    )
    info = probe(videos.truncate(clip, tmp_path / f"b{suffix}", 0.45).uri)
    assert info.duration_s == pytest.approx(10.0)
    parts = in_segments(info, 2, 2)
    statuses = [part.status for part in parts]
    assert statuses == sorted(statuses, key=["ok", "partial", "failed"].index)
    assert statuses[0] == "ok"
    assert statuses[-1] == "failed"
    assert statuses.count("partial") <= 1
    bad = [str(part.error) for part in parts if part.status != "ok"]
    assert all(e.startswith("Truncated: the file ends at ") for e in bad)
    assert all(e.endswith(" s of 10.0 s") for e in bad)
    assert [n for p in parts for n in numbers(p)] == [
        n for p in parts for n in expected(clip, p, 2)
    ]


def test_longer_sound_is_no_missing_end(tmp_path: Path) -> None:
    """Guards against 'cut short' for a video whose sound goes on."""
    clip = videos.write_video(tmp_path / "a.mkv", n_frames=50, options=videos.x264(), audio_s=6.0)
    info = probe(clip.uri)
    decoded = decode_segment(
        info.uri, origin_pts=info.origin_pts, first_index=0, end_index=12, fps=2, size=SIZE,
        is_last=True, duration_s=6.0,
    )  # fmt: skip
    assert (decoded.status, decoded.indices.tolist()) == ("ok", [0, 1, 2, 3])


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(HEALTHY))
def test_no_damage_raises(tmp_path: Path, kind: str) -> None:
    """Guards against one bad video that kills a job: bytes changed or missing anywhere."""
    clip = HEALTHY[kind](tmp_path)
    info = probe(clip.uri)
    for i in range(8):
        bad = tmp_path / f"bad{clip.path.suffix}"
        spoil: list[Callable[[], Clip]] = [
            lambda i=i, bad=bad: videos.damage(clip, bad, i / 8, n_bytes=200, seed=i),  # type: ignore[misc]
            lambda i=i, bad=bad: videos.truncate(clip, bad, i / 8),  # type: ignore[misc]
        ]
        for make in spoil:
            make()
            decoded = decode_segment(
                str(bad), origin_pts=info.origin_pts, first_index=0,
                end_index=grid_size(info.duration_s, 25), fps=25, size=SIZE, is_last=True,
                duration_s=info.duration_s,
            )  # fmt: skip
            assert (decoded.error is None) == (decoded.status == "ok")
            assert decoded.status != "failed" or len(decoded.indices) == 0
            assert len(decoded.frames) == len(decoded.indices) == len(decoded.thumbnails)


def test_vanished_or_replaced_objects_fail(tmp_path: Path) -> None:
    """Guards against half a segment of one version and half of another."""
    clip = videos.write_video(tmp_path / "a.mp4", options=videos.x264())
    info = probe(clip.uri)
    videos.write_video(clip.path, n_frames=40, options=videos.x264())
    replaced = sample(info, 2)
    assert (replaced.status, len(replaced.frames)) == ("failed", 0)
    assert str(replaced.error).startswith("Changed: ")
    clip.path.unlink()
    gone = sample(info, 2)
    assert (gone.status, len(gone.frames)) == ("failed", 0)
    assert str(gone.error).startswith("NotFound: ")


def test_storage_that_fails_half_way_fails_the_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against a network error taken for the end of the file."""
    clip = videos.write_video(
        tmp_path / "a.mp4", n_frames=100, size=(288, 192), options={**videos.x264(), "crf": "1"}
    )
    info = probe(clip.uri)
    data = clip.path.read_bytes()

    def broken(uri: str, etag: str | None = None, **options: Any) -> RangedReader:
        def fetch(start: int, length: int) -> bytes:
            if len(data) * 0.5 < start < len(data) * 0.9:
                raise StorageError("Unreachable", f"cannot read {uri}: connection reset")
            return data[start : start + length]

        return RangedReader(len(data), fetch, name=uri, buffer_bytes=0)

    monkeypatch.setattr(media, "open_object", broken)
    decoded = sample(info, 2)
    assert (decoded.status, len(decoded.frames)) == ("failed", 0)
    assert decoded.error == f"Unreachable: cannot read {clip.uri}: connection reset"


def test_impossible_arguments_are_refused(tmp_path: Path) -> None:
    clip = videos.write_video(tmp_path / "a.mp4", n_frames=5, options=videos.x264())
    with pytest.raises(ValueError, match="grid indices"):
        sample(probe(clip.uri), 2, 3, 3)


def test_pictures_are_scaled_only_where_sampled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against work on frames that nobody asked for."""
    info = probe(videos.write_video(tmp_path / "a.mp4", options=videos.x264()).uri)
    scaled: list[int] = []
    original = PictureMaker.model_input

    def counted(self: PictureMaker, frame: object) -> object:
        scaled.append(1)
        return original(self, frame)  # type: ignore[arg-type]

    monkeypatch.setattr(PictureMaker, "model_input", counted)
    assert len(sample(info, 2).frames) == len(scaled) == 8


@pytest.fixture
def decoded_pts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """When each picture that the decoder gives is shown, in ticks."""
    found: list[int] = []
    take = sampler.Run._take

    def counted(self: sampler.Run, frame: VideoFrame) -> bool:
        assert frame.pts is not None
        found.append(frame.pts)
        return take(self, frame)

    monkeypatch.setattr(sampler.Run, "_take", counted)
    return found


@pytest.mark.parametrize("kind", ["h264_b_frames", "h264_open_gop", "mpeg4", "mpeg2_ts", "hevc"])
def test_pictures_that_nobody_needs_are_not_decoded(
    tmp_path: Path, decoded_pts: list[int], kind: str
) -> None:
    """Guards the time saved on B-frames; that it changes no picture is shown by all others."""
    info = probe(HEALTHY[kind](tmp_path).uri)
    assert len(sample(info, 2).frames)
    few = len(decoded_pts)
    decoded_pts.clear()
    sample(info, 25)
    assert few < 0.85 * len(decoded_pts)


@pytest.mark.parametrize(
    ("codec", "suffix", "options", "gop", "most"),
    [
        # Of 25 pictures up to the one at half a second, the 13th; in a stream that brings its own
        # headers all keyframes too, and what may be the second field of the last picture.
        ("libx264", ".mp4", videos.x264(gop=25, b_frames=0), 25, 13 / 25),
        ("libx264", ".ts", videos.x264(gop=25, b_frames=0), 25, 14 / 25),
        ("libx264", ".mkv", videos.x264(gop=4), 4, 0.3),
        ("libx264", ".ts", videos.x264(gop=4), 4, 0.6),
        ("mjpeg", ".avi", {"q": "5"}, 1, 0.1),
    ],
)
def test_what_follows_the_last_picture_wanted_of_a_gop_is_not_decoded(
    tmp_path: Path,
    decoded_pts: list[int],
    codec: str,
    suffix: str,
    options: dict[str, str],
    gop: int,
    most: float,
) -> None:
    """Guards the time saved on short GOPs, and against leaving out too much for it."""
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = tmp_path / f"a{suffix}"
    clip = videos.write_video(
        path, codec, n_frames=200, gop=gop, pix_fmt=pix_fmt, options=options, max_b_frames=None
    )
    info = probe(clip.uri)
    whole = sample(info, 25)
    assert len(whole.frames) == len(decoded_pts) == 200
    decoded_pts.clear()
    few = sample(info, 2)
    assert few.indices.tolist() == list(range(16))
    assert numbers(few) == [25 * k // 2 for k in range(16)]
    assert np.array_equal(few.frames, whole.frames[[25 * k // 2 for k in range(16)]])
    assert list(few.thumbnails) == [whole.thumbnails[25 * k // 2] for k in range(16)]
    assert len(decoded_pts) <= most * 200 + 4


def test_after_damage_all_is_decoded(tmp_path: Path) -> None:
    """Guards against damage told smaller than it is, for what was not looked at."""
    clip = videos.write_video(
        tmp_path / "a.mp4", n_frames=200, options=videos.x264(gop=25, b_frames=0)
    )
    info = probe(videos.damage(clip, tmp_path / "b.mp4", 0.3, n_bytes=8000).uri)
    whole, few = sample(info, 25), sample(info, 2)
    assert whole.error is not None
    assert few.error is not None
    # So many damaged packets, but those in the rest of the GOP in which it begins.
    counts = [int(found.error.split()[1]) for found in (whole, few) if found.error]
    assert counts[0] - 12 <= counts[1] <= counts[0]
    assert counts[0] > 12


def test_end_of_a_video_by_fractions(tmp_path: Path) -> None:
    """Guards against a rate that meets frame times exactly and yet shows the frame before."""
    clip = videos.write_video(tmp_path / "a.mp4", options=videos.x264())
    whole = sample(probe(clip.uri), 25)
    assert numbers(whole) == list(range(100))
    assert [Fraction(k, 25) for k in whole.indices.tolist()] == list(clip.shown_s)
