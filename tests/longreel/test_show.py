"""The terminal picture of a job; each test names the failure it guards against."""

from __future__ import annotations

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from longreel import readable
from longreel.show import render_table
from tests.longreel.result_rows import Row, job, segment, stored, video


def printed(
    videos: list[Row], segments: list[Row], *, width: int = 80, terminal: bool = False, n: int = 5
) -> str:
    out = io.StringIO()
    console = Console(
        file=out,
        width=width,
        force_terminal=terminal,
        color_system="standard" if terminal else "auto",
        legacy_windows=False,
        _environ={},
    )
    console.print(render_table(videos, segments, narrations=n))
    return out.getvalue()


def test_each_video_says_what_came_out() -> None:
    """Guards against a picture that leaves out status, length, frames, summary or times."""
    text = printed(*job())
    assert "good.mp4" in text
    assert "00:30.0" in text
    assert "60 frames" in text
    assert "What happens in good." in text
    assert "00:01.5" in text
    assert "Event 01.5" in text
    assert "… 4 more narrations" in text
    for status in ("ok", "partial", "failed"):
        assert status in text


def test_errors_are_plain_words_with_their_range() -> None:
    """Guards against a failed video whose reason only a programmer understands."""
    text = " ".join(printed(*job()).split())
    assert "The file ends before the video does." in text
    assert "The data ends at 19.5 s" in text
    assert "without results: 00:19.5 to 00:30.0" in text
    assert "no pictures" in text
    assert "Truncated:" not in text


def test_totals() -> None:
    """Guards against totals that miss a column or double count segments and videos."""
    words = " ".join(printed(*job()).split())
    for part in (
        "videos 3: 1 ok, 1 partial, 1 failed",
        "video-hours 0.0167",
        "frames 99",
        "narrations 10",
        "decode 3.0 s",
        "model 9.0 s",
        "vision tokens 6,000",
        "KV bytes 6.0 MiB",
    ):
        assert part in words


@pytest.mark.parametrize("width", [60, 80, 120])
def test_lines_fit(width: int) -> None:
    """Guards against wrapped rubble in a narrow terminal."""
    videos, segments = job()
    videos[0]["uri"] = "s3://bucket/" + "long/" * 40 + "x" * 200 + ".mp4"
    videos[0]["summary"] = "unbroken" * 60
    text = printed(videos, segments, width=width)
    assert max(cell_len(line) for line in text.splitlines()) <= width


def test_colour_only_in_a_terminal() -> None:
    """Guards against escape codes in a pipe, and against a terminal without colour."""
    assert "\x1b" not in printed(*job())
    text = printed(*job(), terminal=True)
    for code in ("32", "33", "31"):
        assert f"\x1b[{code}m" in text


def test_names_and_narrations_cannot_style_or_move_the_cursor() -> None:
    """Guards against markup and control sequences from file names, narrations and errors."""
    evil = "[bold red]x[dim] [link=e]y :boom: \x1b[2J\x1b]0;title\x07 \u202egnp.exe"
    videos, segments = stored(
        [video("v", uri=f"s3://b/{evil}", summary=evil, error=evil, status="failed")],
        [segment("v", 0, 0, 30, narrations=[{"time_s": 1.0, "text": evil}])],
    )
    text = printed(videos, segments, width=200)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\u202e" not in text
    assert text.count("[bold red]x[dim] [link=e]y") == 4
    assert text.count(":boom:") == 4
    assert "\\x1b[2J" in text


def test_names_stay_unique() -> None:
    """Guards against two videos under one shortened name."""
    uris = [f"s3://b/{part}/camera/clip.mp4" for part in ("a", "b")] + ["s3://b/other.mp4"]
    assert readable.names(uris) == ["a/camera/clip.mp4", "b/camera/clip.mp4", "other.mp4"]
    assert len(set(readable.names(["s3://b/x.mp4"] * 3))) == 3
    long = [f"s3://b/{'a' * 60}{i}{'z' * 60}.mp4" for i in range(30)]
    short = readable.names(long, 24)
    assert len(set(short)) == 30
    assert max(map(cell_len, short)) <= 24
    assert readable.shorten("recording_of_the_morning_0042.mp4", 20).endswith("0042.mp4")


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "00:00.0"), (59.96, "01:00.0"), (3599.97, "1:00:00.0"), (36001.25, "10:00:01.2")],
)
def test_clock_carries(seconds: float, shown: str) -> None:
    """Guards against times such as 00:60.0."""
    assert readable.clock(seconds) == shown


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), -1.0])
def test_odd_numbers_do_not_fail(value: float | None) -> None:
    """Guards against a traceback for a row with nothing or nonsense in a column."""
    videos, segments = stored(
        [video("v", duration_s=value, decode_s=value, n_segments=None, n_frames=None)],
        [segment("v", 0, 0, 30, narrations=[{"time_s": value, "text": None}])],
    )
    assert "v.mp4" in printed(videos, segments)


def test_empty_and_unfinished_jobs() -> None:
    """Guards against a crash or silence when there are no videos or no video rows yet."""
    assert "No videos." in printed([], [])
    _, segments = job()
    assert "the job has not finished" in " ".join(printed([], segments).split())
    assert "No segment row covers" not in printed(*job())


def test_zero_narrations() -> None:
    """Guards against an empty table or a stray count when no narrations are asked for."""
    assert "Event" not in printed(*job(), n=0)
