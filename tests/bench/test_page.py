"""The page of benchmarks says what the results say: figures, verdicts, reasons, other machines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.claims import CLAIMS, claim_of
from bench.kept import read_all
from bench.marks import CARD
from bench.page import PAGE, page, unexplained
from bench.sections import SECTIONS
from bench.sections_ablate import ABLATIONS
from mod.engine.cache import PAGE_SIZE
from mod.engine.policy import Window
from mod.engine.speculation import MAX_CHUNK
from mod.routers import placed
from tests.bench.results import keep, ratio


def test_the_page_is_what_the_results_give() -> None:
    """Guards against figures that were true once: ``python -m bench.page`` writes it anew."""
    assert PAGE.read_text() == page(read_all()), "stale: run python -m bench.page"


def test_every_miss_has_its_reason_and_every_ratio_its_sentence() -> None:
    """Guards against a bar that is missed in silence, and rows that nobody can read."""
    kept = read_all()
    assert not unexplained(kept)
    known = {section.bench for section in SECTIONS}
    unknown = [
        f"{each.bench} {key}"
        for each in kept
        if each.bench in known
        for key in each.data["ratios"]
        if claim_of(each.bench, f"ratios/{key}") is None
    ]
    assert not unknown
    assert len({(claim.bench, claim.path) for claim in CLAIMS}) == len(CLAIMS)
    assert {claim.bench for claim in CLAIMS} == known


def test_the_verdict_follows_the_result(tmp_path: Path) -> None:
    """Guards against a verdict that outlives its figure."""
    sides = {"ours": [10.0], "ffmpeg": [5.0], "daft": [4.0]}
    keep(
        tmp_path,
        "m",
        "decode",
        {"over_daft": ratio(2.0, 1.5, 2.5), "over_ffmpeg": ratio(2.0)},
        figures={"times_real_time": sides, "skipped": {"nemo_curator": "not installed"}},
    )
    text = page(read_all(tmp_path))
    assert "| decoding, over Daft | 2 (1.50 to 2.50) | at least 3 | **missed by 33%** |" in text
    assert "| at least 1.2 | met | `python -m bench.decode --json` |" in text
    assert "Figures that have a bar: 2. These miss it: 1." in text
    # The reason's own figures are of the same result: 4 / 5, and three times that.
    reason = " ".join(text.split())
    assert "Daft decodes as fast as 0.80 of `ffmpeg`" in reason
    assert "would be 2.4 times what `ffmpeg` decodes" in reason
    assert "- `nemo_curator`: not installed" in text
    assert "| Daft | 4 times real time |" in text
    assert "`ffmpeg` on all cores decodes 5 times real time" in reason

    keep(tmp_path, "m", "decode", {"over_daft": ratio(3.0)})
    text = page(read_all(tmp_path))
    assert "missed" not in text.partition("## Bars that are missed")[2]
    assert "Figures that have a bar: 1. None misses it." in text


def test_other_machines_and_benches_that_nobody_described_are_there(tmp_path: Path) -> None:
    """Guards against results that lie there and are not shown."""
    keep(tmp_path, "m", "decode", {"over_ffmpeg": ratio(2.0)})
    keep(tmp_path, "m", "flops", {"paper_rows_max_rel_error": ratio(0.0)})
    keep(tmp_path, "n", "decode", {"over_ffmpeg": ratio(1.0)}, quick=True)
    keep(tmp_path, "n", "strange_one", {"this_over_that": ratio(1.5, 1.0, 2.0)})
    text = page(read_all(tmp_path))
    elsewhere = text.partition("Elsewhere, A processor, 2 cores, short form, commit `abc`")[2]
    assert "| `over_ffmpeg` | 1 | 1 | **missed by 17%** |" in elsewhere
    assert "## Strange one" in text
    assert "| `this_over_that` | this over that | 1.50 (1 to 2) | 3 | no bar |  |" in text
    assert "Limit:" not in text.partition("## Strange one")[2]


def test_a_machine_that_was_not_measured_is_said_where_it_bounds(tmp_path: Path) -> None:
    """Guards against a bench that reckons its limits and keeps quiet where it has none."""
    keep(tmp_path, "m", "engine", {"bulk_over_plain_loop": ratio(6.0)})
    keep(tmp_path, "m", "flops", {"paper_rows_max_rel_error": ratio(0.0)})
    text = page(read_all(tmp_path))
    assert text.count("Limit: what this machine does at most was not measured in this run.") == 1
    assert text.count("Limit:") == 1


def test_ablations_stand_by_knob(tmp_path: Path) -> None:
    """Guards against figures that lose their group, and sentences with another result's figures."""
    ratios = {"page_16_over_default_time": ratio(1.0), "chunk_1_over_default_time": ratio(2.0)}
    figures = {"chunk": {"values": {"32": {"in_vain": ratio(0.25)}}}}
    keep(tmp_path, "m", "ablate", {**ratios, "new_one": ratio(3.0)}, figures=figures)
    text = page(read_all(tmp_path)).partition("## Ablations")[2]
    first, chunk, pages = (text.partition(f"### {title}") for title in ("Chunk", "Chunk", "Page"))
    assert "| `new_one` | new one | 3 | 1 | no bar |  |" in first[0]
    assert "`chunk_1_over_default_time`" in chunk[2].partition("###")[0]
    assert "25% of those that ran were in vain" in " ".join(chunk[2].split())
    assert "`page_16_over_default_time`" in pages[2]
    assert "pages of 256 take (not measured) times" in " ".join(pages[2].split())


def test_the_sentences_name_the_defaults_that_are() -> None:
    """Guards against a default that changes and a page that goes on defending the old one."""
    said = ABLATIONS.about
    assert f"chunks of at most {MAX_CHUNK} frames" in said
    assert f"a window of {Window().frames} frames" in said
    assert f"pages of {PAGE_SIZE} tokens" in said
    config = json.loads((CARD.parent / "config.json").read_text())
    assert f"a keep ratio of {config['keep_ratio']}, the `{config['router']}` router" in said
    assert config["always_keep_decision"]
    assert config["mod_layers"] == placed("interleaved", config["text_config"]["num_hidden_layers"])
    groups = {claim.group for claim in CLAIMS if claim.bench == "ablate"}
    assert groups == set(ABLATIONS.groups)


def _ran(wall_s: float, **more: Any) -> dict[str, Any]:
    return {
        "wall_s": {"decode and narrate": wall_s, "shutdown": 0.05},
        "busy_s": {"decode and narrate": 1.5 * wall_s, "shutdown": 0.02},
        "stages": {"narrate": {"calls": 7.0, "wall_s": 2.0, "cpu_s": 3.5, "n_bytes": 0.0}},
        "cpu_s": {"driver": 1.25, "replica": wall_s},
        "peak_bytes": {"driver": 3 * 2**20},
        "bytes": {"written": 2_500_000},
        **more,
    }


def test_where_a_jobs_time_goes_is_shown_with_the_version_before(tmp_path: Path) -> None:
    """Guards against parts that are measured and shown to nobody, and a side in the wrong row."""
    ratios = {"video_seconds_per_second": ratio(9.0)}
    keep(tmp_path, "m", "profile", ratios, figures={"after": _ran(8.0)}, runs=3)
    text = page(read_all(tmp_path)).partition("## Where a job's time goes")[2]
    assert "| part of the wall time | s | busy cores |" in text
    assert "| decode and narrate | 8 | 1.50 |\n| shutdown | 0.0500 |  |\n| all | 8.05 |" in text
    assert "Before is" not in text

    before = _ran(16.0, commit="old", stages={})
    figures = {"after": _ran(8.0), "before": before, "same_rows": False}
    keep(tmp_path, "m", "profile", ratios, figures=figures, runs=3)
    text = page(read_all(tmp_path)).partition("## Where a job's time goes")[2]
    said = "Before is commit `old`, after `abc`; their rows are **not the same**."
    assert said in " ".join(text.split())
    assert "| decode and narrate | 16 | 8 | 1.50 | 1.50 |" in text
    assert "| replica | 16 | 8 |  |  |\n| driver | 1.25 | 1.25 | 3 | 3 |" in text
    assert "| narrate |  | 3.50 |  | 7 |" in text
    assert "| written | 2.50 | 2.50 |" in text


def test_shares_of_the_machine_are_shown(tmp_path: Path) -> None:
    """Guards against limits that are measured and shown to nobody."""
    limits = {
        "flops_per_s": 5e10,
        "bytes_per_s": 1e10,
        "dtype": "float32",
        "threads": 1,
        "share_of_flops": {"quiet_mod": 0.4},
        "share_of_bytes": {},
    }
    keep(tmp_path, "m", "engine", {"x": ratio(1.0)}, figures={"limits": limits})
    text = " ".join(page(read_all(tmp_path)).split())
    assert "a matrix product of float32 on 1 thread does 50 GFLOP/s and a copy 10 GB/s" in text
    assert "`quiet_mod` 40% of the arithmetic" in text
