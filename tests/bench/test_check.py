"""The check finds figures that no result backs, and lets pass what is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.allowed import ALLOWED, Allowed
from bench.check import same_picture, stale, unbacked, wrong_pages, wrong_plots
from bench.kept import UnknownFigureError, read_all
from bench.marks import ROOT, filled, written_by_hand
from tests.bench.results import keep, ratio

MARK = "<!-- figure: decode ratios/over_ffmpeg as {} -->{}<!-- /figure -->"


def test_every_figure_of_the_docs_is_backed() -> None:
    """Guards what ``make bench-check`` promises, plots aside."""
    assert not list(wrong_pages(read_all()))


@pytest.mark.slow
def test_every_plot_shows_its_result() -> None:
    """Guards against a plot of an older result."""
    pytest.importorskip("matplotlib")
    assert not list(wrong_plots(read_all()))


@pytest.mark.parametrize(
    "claim",
    [
        "It decodes 3.1 x as fast as the others.",
        "It decodes 3.1\u00d7 what they do.",
        "Five times the speed of Daft.",
        "MoD takes 42% less.",
        "A frame takes 16 ms.",
        "The job took 90 seconds on two cores.",
        "It needs 13 MB for three hours.",
        "On a GPU it does 699 frames a second.",
        "| flash | 0.32 |",
        "Ours is faster than Ray Serve's.",
        "It is back in half a second.",
        "It needs half the memory.",
        "Training costs a third of the time.",
        "It reaches 640 frames/s.",
    ],
)
def test_a_claim_without_a_result_is_found(claim: str) -> None:
    """Guards against a figure that somebody types into a page."""
    assert len(list(unbacked("docs/x.md", f"# A page\n\nSome words. {claim} More.\n", ()))) >= 1


@pytest.mark.parametrize(
    "harmless",
    [
        "Python 3.11, KubeRay 1.6.2 and H.264.",
        "Run `python -m x --timeout 30 s` and see.",
        "```\nGPUs 10\n    0.13 s; 20% of each\n```",
        "See [the page](https://x.test/50%25).",
        "Two frames a second are sampled, and the second half of it is.",
        f"It decodes {MARK.format('.2f', '9.99')} times as much.",
        "<!-- table: tiny -->\n| a | 0.5 |\n<!-- /table -->",
    ],
)
def test_what_is_no_claim_is_let_pass(harmless: str) -> None:
    """Guards against a check that is in the way of plain sentences."""
    assert not list(unbacked("docs/x.md", harmless, ()))


def test_what_is_allowed_is_so_on_its_page_alone_and_must_be_there() -> None:
    """Guards against an allowance that outlives what it was for."""
    allowed = [Allowed("docs/x.md", r"waits 50 ms", "a setting")]
    assert not list(unbacked("docs/x.md", "It waits\n50 ms.", allowed))
    assert list(unbacked("docs/y.md", "It waits 50 ms.", allowed))
    (told,) = unbacked("docs/x.md", "It waits.", allowed)
    assert "which is not there" in told
    pages = {path.relative_to(ROOT).as_posix() for path in written_by_hand()}
    assert {each.page for each in ALLOWED} <= pages


def test_marked_figures_follow_their_results(tmp_path: Path) -> None:
    """Guards against a doctored figure: what stands in a mark is the result's or is told."""
    keep(tmp_path, "m", "decode", {"over_ffmpeg": ratio(1.87, 1.68, 1.88)})
    kept = read_all(tmp_path)
    page = f"Ours is {MARK.format('.1f', '9.9')} times, {MARK.format('.2f spread', '')}."
    true = filled(page, kept)
    assert MARK.format(".1f", "1.9") in true
    assert MARK.format(".2f spread", "1.87 (1.68 to 1.88)") in true
    assert filled(true, kept) == true
    path = ROOT / "docs" / "engine.md"
    assert not list(stale(path, path.read_text(), "this"))
    (told,) = stale(path, path.read_text() + "9", "python -m bench.page")
    assert told == "docs/engine.md is not what the results give: run python -m bench.page"
    with pytest.raises(UnknownFigureError, match="no ratios/over_all"):
        filled(page.replace("over_ffmpeg", "over_all"), kept)
    with pytest.raises(UnknownFigureError, match="no table 'none'"):
        filled("<!-- table: none -->\n<!-- /table -->", kept)
    with pytest.raises(ValueError, match="first in its line"):
        filled(f"Ours is\n{MARK.format('.1f', '1.9')} times.", kept)
    for slip in ("<!-- figure: decode x -->1<!-- /figure -->", "1<!-- /figure -->"):
        with pytest.raises(ValueError, match="no mark is written like this"):
            filled(slip, kept)


def test_pictures_are_compared_by_what_is_seen() -> None:
    """Guards against plots that differ by the version of what drew them alone."""
    svg = '<svg><metadata>v{v}</metadata><path id="m{id}" d="M 1.0000{d} 20"/>{text}</svg>'
    drawn = svg.format(v=1, id="0123456789", d=1, text="")
    assert same_picture(drawn, svg.format(v=2, id="abcdef0123", d=2, text=""))
    assert not same_picture(drawn, drawn.replace(" 20", " 21"))
    assert not same_picture(drawn, svg.format(v=1, id="0123456789", d=1, text="<text>9</text>"))
