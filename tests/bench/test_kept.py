"""Which result counts, where a new one goes, figures by their paths, and bars."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.bars import Spread, at_least, at_most, number, shown
from bench.harness import result_path
from bench.kept import UnknownFigureError, figure, read_all
from tests.bench.results import keep, ratio


def test_full_results_of_one_machine_count_before_others(tmp_path: Path) -> None:
    """Guards against a short run, or a machine that ran one bench, taking the place of the rest."""
    keep(tmp_path, "a", "decode", {"x": ratio(1.0)})
    keep(tmp_path, "b", "decode", {"x": ratio(2.0)}, quick=False)
    keep(tmp_path, "b", "serve", {"x": ratio(2.0)}, quick=False)
    keep(tmp_path, "c", "decode", {"x": ratio(3.0)}, quick=True)
    keep(tmp_path, "c", "serve", {"x": ratio(3.0)}, quick=True)
    keep(tmp_path, "c", "scale", {"x": ratio(3.0)}, quick=True)
    keep(tmp_path, "d", "decode", {})
    kept = read_all(tmp_path)
    assert [each.machine for each in kept if each.bench == "decode"] == ["b", "a", "c"]
    assert figure(kept, "decode", "ratios/x").median == 2.0
    assert figure(kept, "scale", "ratios/x").median == 3.0
    with pytest.raises(UnknownFigureError, match=r"b/decode\.json has no ratios/y"):
        figure(kept, "decode", "ratios/y")
    with pytest.raises(UnknownFigureError, match=r"no result of bench\.flops"):
        figure(kept, "flops", "ratios/x")


def test_a_quick_result_never_takes_the_place_of_a_full_one(tmp_path: Path) -> None:
    """Guards against a short run that wipes out an hour's figures."""
    plain, beside = tmp_path / "m" / "decode.json", tmp_path / "m" / "decode.quick.json"
    assert result_path(tmp_path / "m", "decode", quick=True) == plain
    keep(tmp_path, "m", "decode", {}, quick=True)
    assert result_path(tmp_path / "m", "decode", quick=True) == plain
    keep(tmp_path, "m", "decode", {})
    assert result_path(tmp_path / "m", "decode", quick=True) == beside
    assert result_path(tmp_path / "m", "decode", quick=False) == plain


def test_figures_are_found_by_their_paths(tmp_path: Path) -> None:
    """Guards against a claim that shows another figure than it names."""
    figures = {"by": {"0.2": [3.0, 1.0]}, "runs": [{"s": 1}, {"s": 5}], "word": "x", "ok": True}
    keep(tmp_path, "m", "decode", {"x": ratio(2.0, 1.0, 4.0)}, figures=figures)
    (kept,) = read_all(tmp_path)
    assert kept.spread("ratios/x") == Spread(2.0, 1.0, 4.0, 3)
    assert kept.spread("figures/by/0.2") == Spread(2.0, 1.0, 3.0, 2)
    assert kept.spread("figures/by/0.2/1") == Spread(1.0, 1.0, 1.0, 1)
    assert kept.spread("figures/runs/*/s") == Spread(3.0, 1, 5, 2)
    for nothing in ("figures/runs/*/t", "figures/by", "figures/word", "figures/ok", "ratios/y"):
        assert kept.spread(nothing) is None
    # No side of it ran there.
    assert kept.spread("derived/daft_over_ffmpeg") is None


@pytest.mark.parametrize(
    ("bar", "values", "verdict"),
    [
        (at_least(2.0), (2.0, 1.9, 2.1), "met by the median, not in each run"),
        (at_least(2.0), (2.1, 2.0, 2.2), "met"),
        (at_least(2.0), (1.5,), "missed by 25%"),
        (at_least(2.0), (1.999,), "missed by under 1%"),
        (at_least(2.0), (0.0,), "missed"),
        (at_most(2.0), (2.0, 1.0, 2.1), "met by the median, not in each run"),
        (at_most(2.0), (2.5,), "missed by 25%"),
        (at_most(2.0), (40.0,), "missed, 20 times the bar"),
        (at_most(0.0), (0.0,), "met"),
        (at_most(0.0), (1.0,), "missed"),
    ],
)
def test_a_bar_is_met_on_its_own_side(bar: object, values: tuple[float, ...], verdict: str) -> None:
    """Guards against a miss that reads as met, the median's or any run's."""
    assert isinstance(bar, type(at_least(1.0)))
    found = Spread(values[0], min(values), max(values), len(values))
    assert str(bar.verdict(found)) == verdict


def test_numbers_keep_three_digits() -> None:
    """Guards against digits that no run can repeat, and against 0.00."""
    assert [number(n) for n in (0, 2.0, 1.8, 0.00562, 123.4, 1113.58, -0.00515)] == [
        "0",
        "2",
        "1.80",
        "0.00562",
        "123",
        "1114",
        "-0.00515",
    ]
    assert shown(Spread(1.0, 1.0, 1.0, 4)) == "1"
    assert shown(Spread(1.5, 1.25, 2.0, 3)) == "1.50 (1.25 to 2)"
