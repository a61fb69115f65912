"""The report page; each test names the failure it guards against."""

from __future__ import annotations

import base64
import hashlib
import random
import re
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pytest

from longreel import report
from longreel.digest import Film, Narration
from longreel.filmstrip import EDGE, SMALL_BYTES, choose, spread, thumbnail
from longreel.report import render_report
from longreel.report_timeline import cluster
from tests.longreel.result_rows import Row, job, jpeg, segment, stored, video

VOID = {"meta", "img", "input", "path", "link", "br", "hr"}


class Page(HTMLParser):
    """Every start tag with its attributes and the text inside it; fails on unbalanced tags."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self._texts: list[list[str]] = []
        self._open: list[tuple[str, int]] = []
        self.feed(html)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))
        self._texts.append([])
        if tag not in VOID:
            self._open.append((tag, len(self.tags) - 1))

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        opened, _ = self._open.pop()
        assert opened == tag

    def handle_data(self, data: str) -> None:
        for _, index in self._open:
            self._texts[index].append(data)
        if not any(tag in ("script", "style") for tag, _ in self._open):
            self.text.append(data)

    def of(self, tag: str, kind: str = "") -> list[dict[str, str]]:
        return [
            {**attrs, "": "".join(texts)}
            for (name, attrs), texts in zip(self.tags, self._texts, strict=True)
            if name == tag and (not kind or kind in attrs.get("class", "").split())
        ]


def page(videos: list[Row], segments: list[Row], **other: Any) -> tuple[str, Page]:
    given = {"title": "A job", "generated_at": "22 November 2026", **other}
    html = render_report(videos, segments, **given)
    return html, Page(html)


def percent(attrs: dict[str, str], name: str) -> float:
    found = re.search(rf"(?:^|;){name}:(-?[\d.]+)%", attrs["style"])
    assert found
    return float(found[1])


def test_marks_lie_at_their_times() -> None:
    """Guards against a timeline that shows things at other times than they happened."""
    videos, segments = job()
    _, found = page(videos[:1], segments[:3])
    times = [each["time_s"] for row in segments[:3] for each in row["narrations"]]
    marks = found.of("a", "mark")
    assert [percent(mark, "left") for mark in marks] == pytest.approx(
        [time / 30 * 100 for time in times], abs=0.001
    )
    assert [percent(key, "left") for key in found.of("i", "key")] == pytest.approx([10, 15, 80])
    assert [percent(cut, "left") for cut in found.of("i", "cut")] == pytest.approx(
        [100 / 3, 200 / 3], abs=0.001
    )
    chapter = found.of("div", "chapters")[0][""]
    assert chapter == "Opening"
    rows = {row.get("id"): row[""] for row in found.of("li")}
    for mark, time in zip(marks, times, strict=True):
        assert rows[mark["href"][1:]].startswith(f"00:{time:04.1f}Event")


def test_thumbnails_do_not_overlap_and_keep_their_order() -> None:
    """Guards against unreadable piles where keyframes lie close together."""
    videos, segments = job()
    _, found = page(videos[:1], segments[:3])
    edge = 0.0
    shots = [li for li in found.of("li") if "data-left" in li]
    assert [float(shot["data-left"]) for shot in shots] == [10, 15, 80]
    for shot in shots:
        assert percent(shot, "margin-left") >= 0
        edge += percent(shot, "margin-left") + percent(shot, "width")
    assert edge <= 100.01
    for image in found.of("img"):
        assert image["loading"] == "lazy"
        assert image["alt"].startswith("Keyframe at")


def test_spread_stays_near_without_overlap() -> None:
    """Guards against a layout that overlaps, leaves the line or moves what had room."""
    assert spread([20.0, 60.0], 10) == pytest.approx([15, 55])
    assert spread([50.0, 50.0], 10) == pytest.approx([40, 50])
    draw = random.Random(7)
    for _ in range(300):
        count = draw.randint(0, 9)
        centres = sorted(draw.choice([draw.uniform(0, 100), 0.0, 99.0]) for _ in range(count))
        width = draw.uniform(1, 16)
        lefts = spread(centres, width)
        crowded = count * width >= 100
        assert all(-1e-6 <= left <= 100 - width + 1e-6 for left in lefts)
        assert crowded or all(b - a >= width - 1e-6 for a, b in pairwise(lefts))


def test_choose_spreads_over_the_video_and_prefers_scores() -> None:
    """Guards against eight thumbnails of the first minute of an hour."""
    keyframes = [{"time_s": float(t), "score": float(t % 10)} for t in range(0, 1000, 3)]
    found = choose(keyframes, 1000.0, 8)
    assert [int(each["time_s"] // 125) for each in found] == list(range(8))
    assert all(each["score"] == 9 for each in found)
    lumped = choose(keyframes[:20], 1000.0, 8)
    assert len(lumped) == 8
    assert lumped == sorted(lumped, key=lambda each: each["time_s"])


def test_nothing_can_be_injected() -> None:
    """Guards against script, attribute and style injection through any text of the rows."""
    evil = "\"'><script>alert(1)</script><img src=x onerror=alert(2)> style=\x1b\u202e</style>"
    videos, segments = stored(
        [
            video(
                "v",
                uri=f"s3://b/{evil}",
                summary=evil,
                error=f"Damaged: {evil}",
                status="partial",
                codec=evil,
                model=evil,
                job_id=evil,
                chapters=[{"start_s": 0.0, "end_s": 9.0, "title": evil, "summary": evil}],
                keyframes=[{"time_s": 1.0, "uri": f"https://x/{evil}"}],
            )
        ],
        [
            segment(
                "v",
                0,
                0.0,
                20.0,
                job_id=evil,
                status="failed",
                error=evil,
                narrations=[{"time_s": 1.0, "text": evil}],
            )
        ],
    )
    html, found = page(videos, segments, title=evil, generated_at=evil)
    plain, _ = page(*stored([video("v")], []))
    assert len(found.of("script")) == 1
    assert found.of("script")[0][""] == Page(plain).of("script")[0][""]
    assert not found.of("img")
    assert "<script>alert" not in html
    assert "\x1b" not in html
    assert "\u202e" not in html
    for _, attrs in found.tags:
        assert not [name for name in attrs if name.startswith("on")]
        style = attrs.get("style", "")
        assert re.fullmatch(r"[a-z-]+:[\d.]+%?(;(width|--h):[\d.]+%?)*", style) or not style
    assert any("<script>alert(1)</script>" in text for text in found.text)


def test_policy_names_exactly_the_inline_style_and_script() -> None:
    """Guards against a page whose own policy blocks it, or that allows anything else."""
    _, found = page(*job())
    policy = next(m["content"] for m in found.of("meta") if "http-equiv" in m)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    for tag, rule in (("script", "script-src"), ("style", "style-src-elem")):
        digest = base64.b64encode(hashlib.sha256(found.of(tag)[0][""].encode()).digest())
        assert rules[rule] == f"'sha256-{digest.decode()}'"


def test_no_references_out_of_the_page() -> None:
    """Guards against a page that needs the network or tells someone that it was opened."""
    videos, segments = job()
    videos[1]["keyframes"] = [{"time_s": 1.0, "uri": "https://example.org/key.jpg", "jpeg": None}]
    html, found = page(videos, segments)
    for tag, attrs in found.tags:
        assert tag not in ("link", "iframe", "object", "base")
        for name in ("src", "href", "srcset", "poster", "action"):
            if name in attrs:
                assert attrs[name].startswith(("data:image/jpeg;base64,", "#"))
    assert "url(" not in html
    assert "@import" not in html
    assert found.of("span", "blank")[0]["title"] == "https://example.org/key.jpg"


def test_every_link_and_id_fits() -> None:
    """Guards against marks that lead nowhere and ids used twice."""
    _, found = page(*job())
    ids = [attrs["id"] for _, attrs in found.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    wanted = [a["href"][1:] for a in found.of("a")] + [
        attrs["aria-labelledby"] for _, attrs in found.tags if "aria-labelledby" in attrs
    ]
    assert set(wanted) <= set(ids)


def test_partial_and_failed_say_why_and_where() -> None:
    """Guards against damage that looks like a quiet stretch, or a failure without a reason."""
    _, found = page(*job())
    good, cut, bad = found.of("article")
    assert good["class"] == "card ok"
    assert "ends before the video does" in cut[""]
    assert "No results from 00:19.5 to 00:30.0" in cut[""]
    assert "no pictures" in bad[""]
    gaps = found.of("i", "gap")
    assert [percent(gap, "left") for gap in gaps] == pytest.approx([65])
    assert [percent(gap, "width") for gap in gaps] == pytest.approx([35])
    assert [each[""] for each in found.of("p", "pill")] == ["ok", "partial", "failed"]


def test_gaps_know_missing_rows() -> None:
    """Guards against an unfinished or failed video that looks complete."""
    row = video("v")
    unfinished = Film(row, (segment("v", 1, 10.0, 20.0),))
    assert [(gap.start_s, gap.end_s) for gap in unfinished.gaps()] == [(0, 10), (20, 30)]
    whole = Film(row, tuple(segment("v", i, i * 10.0, i * 10.0 + 10) for i in range(3)))
    assert whole.gaps() == []
    failed = Film({**row, "status": "failed", "n_segments": 0}, ())
    assert [(gap.start_s, gap.end_s) for gap in failed.gaps()] == [(0, 30)]


def test_summary_strip_and_provenance() -> None:
    """Guards against a page that hides what it cost or which model wrote it."""
    _, found = page(*job())
    text = " ".join(found.text)
    for part in ("1:00", "6.0 k", "6.0 MiB", "12.0 s", "3f1c9a0d", "b1946ac9", "job-1", "0.2"):
        assert part in text
    # 49.5 s of video have results (30 + 19.5); decode and model took 12 s.
    assert "4.1\N{MULTIPLICATION SIGN}" in text
    assert "1 ok, 1 partial, 1 failed" in text


def test_empty_job_and_unfinished_job() -> None:
    """Guards against a crash on a job without videos or without video rows."""
    _, found = page([], [])
    assert "nothing matched" in " ".join(found.text)
    assert not found.of("article")
    _, found = page([], job()[1])
    assert "the job has not finished" in " ".join(found.text)


def test_long_video_stays_usable() -> None:
    """Guards against thousands of marks, thumbnails and tab stops for one long video."""
    picture = jpeg()
    hours = 36_000.0
    narrations = [{"time_s": i * 18.0, "text": f"Event {i}"} for i in range(2_000)]
    videos, segments = stored(
        [
            video(
                "v",
                duration_s=hours,
                n_segments=1,
                keyframes=[{"time_s": i * 60.0, "jpeg": picture} for i in range(600)],
            )
        ],
        [segment("v", 0, 0.0, hours, narrations=narrations)],
    )
    html, found = page(videos, segments)
    assert len(html) < 1_000_000
    assert len(found.of("img")) == 8
    marks = found.of("a", "mark")
    assert len(marks) <= 160
    assert sum(int(mark["data-n"]) for mark in marks) == 2_000
    assert [percent(m, "left") for m in marks] == pytest.approx(
        [int(m["href"].partition("n")[2]) * 18 / hours * 100 for m in marks], abs=0.001
    )
    rest = found.of("details", "rest")
    assert len(rest) == 1
    assert "open" not in rest[0]
    assert "1,994 more narrations" in rest[0][""]
    assert "Event 1999" in rest[0][""]


@pytest.mark.slow
def test_many_videos_stay_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a page no browser opens, and against silence about what was left out."""
    # The same shares on a fifth of the page, for speed.
    for bound in ("CARDS", "IMAGE_BYTES", "NARRATIONS", "MARKS", "CHAPTERS"):
        monkeypatch.setattr(report, f"MAX_{bound}", getattr(report, f"MAX_{bound}") // 5)
    picture = jpeg()
    videos, segments = [], []
    for i in range(report.MAX_CARDS + 20):
        status = "failed" if i >= report.MAX_CARDS else "ok"
        videos.append(
            video(
                f"v{i}",
                status=status,
                n_segments=1,
                keyframes=[{"time_s": float(t), "jpeg": picture} for t in range(30)],
            )
        )
        narrations = [{"time_s": t / 2, "text": "Something happens here. " * 4} for t in range(60)]
        segments.append(segment(f"v{i}", 0, 0.0, 30.0, narrations=narrations))
    html, found = page(*stored(videos, segments))
    assert len(html) < 5_000_000
    images = sum(len(image["src"]) for image in found.of("img"))
    assert images <= report.MAX_IMAGE_BYTES * 1.4
    cards = found.of("article")
    assert len(cards) == report.MAX_CARDS
    assert sum("failed" in card["class"].split() for card in cards) == 20
    text = " ".join(found.text)
    assert "20 videos without a card here" in text
    assert "24 of 60 narrations, evenly chosen" in text


def test_thumbnails_are_bounded_and_bad_ones_are_left_out() -> None:
    """Guards against a huge, broken or foreign picture that breaks or bloats the page."""
    small = jpeg(width=160, height=90)
    kept = thumbnail(small)
    assert kept
    assert kept.jpeg == small
    big = thumbnail(jpeg(width=4000, height=3000))
    assert big
    assert max(big.width, big.height) <= EDGE
    assert len(big.jpeg) <= SMALL_BYTES
    for bad in (None, b"", b"GIF89a", b"\xff\xd8\xff", small[:200]):
        assert thumbnail(bad) is None
    videos, segments = job()
    videos[0]["keyframes"][1]["jpeg"] = b"no picture"
    _, found = page(videos, segments)
    assert len(found.of("img")) == 2
    assert found.of("span", "blank")[0][""] == "no picture"


@pytest.mark.parametrize("value", [None, float("nan"), 0.0, -3.0])
def test_odd_durations_do_not_fail(value: float | None) -> None:
    """Guards against a division by zero or a position outside the line."""
    videos, segments = stored(
        [video("v", duration_s=value, keyframes=[{"time_s": 2.0, "jpeg": jpeg()}])],
        [segment("v", 0, 0.0, 30.0, narrations=[{"time_s": 99.0, "text": "late"}])],
    )
    _, found = page(videos, segments)
    assert "late" in " ".join(found.text)
    assert len(found.of("img")) == 1


def test_cluster_keeps_every_narration() -> None:
    """Guards against narrations lost between marks, at the very end, or out of range."""
    narrations = [Narration(t, "") for t in (0.0, 0.1, 5.0, 9.99, 10.0, 12.0)]
    marks = cluster(narrations, 10.0, 10)
    assert [mark.first for mark in marks] == [0, 2, 3, 4]
    assert sum(mark.members for mark in marks) == len(narrations)


def test_readable_without_script() -> None:
    """Guards against content that only a script reveals."""
    html, _ = page(*job())
    bare = re.sub(r"<script>.*?</script>", "", html, flags=re.S)
    text = " ".join(Page(bare).text)
    for part in ("Event 01.5", "00:28.0", "What happens in good.", "Opening"):
        assert part in text
