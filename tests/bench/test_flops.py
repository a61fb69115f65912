"""The cost model against the paper's published figures."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from bench import harness
from bench.flops import llama3_8b, measure
from mod.cost import kv_bytes


def test_the_papers_rows_are_reproduced_within_two_permille() -> None:
    """Guards against a cost model that reckons another network than the paper's."""
    _, ratios, figures = measure(quick=True)
    assert len(figures["tera_macs"]) == 9
    assert ratios["paper_rows_max_rel_error"]["max"] <= 0.002
    assert ratios["paper_kv_max_rel_error"]["max"] == 0.0


def test_one_hour_of_cache_is_the_papers() -> None:
    """Two frames a second for an hour: 9.67 GiB dense, 6.15 GiB with MoD."""
    hour = 7200
    assert abs(kv_bytes(llama3_8b([]), hour, hour, 2) / 2**30 - 9.67) < 0.01
    assert abs(kv_bytes(llama3_8b(), hour, hour, 2) / 2**30 - 6.15) < 0.01


def test_the_last_line_is_the_json_that_the_contract_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards against a result that others cannot read by its keys."""
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["flops", "--json", "--quick"])
    harness.run("flops", measure)
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(printed) == {"bench", "machine", "commit", "settings", "ratios", "figures"}
    (kept,) = tmp_path.glob("*/flops.json")
    assert json.loads(kept.read_text()) == printed
