"""The bench of large models, at a geometry that a CPU runs in seconds.

Guards against a run on a rented GPU that ends in an error, or lacks what the page is to show.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText, LlamaConfig, SiglipVisionConfig

from bench import harness, large, large_open, weightless
from bench.claims import CLAIMS
from bench.kept import read_all
from bench.large_engine import SPEAKS, Effort, engine_of, frames_of
from bench.large_live import Tried
from bench.large_parts import Parts
from bench.names import of_model
from bench.page import command, page
from bench.plain_open import PlainChat, own_attention
from bench.sections import section_of
from infra.openmodels.published import PUBLISHED
from mod.adopted import AdoptedModel
from mod.config import AdoptedConfig, VideoLLMMoDConfig
from mod.engine.events import TurnEnded, Word
from mod.engine.policy import Window
from mod.families.chat import ChatLayout
from mod.modeling import VideoLLMMoD

CPU = torch.device("cpu")
EFFORT = Effort(
    bulk_runs=1,
    bulk_frames=12,
    plain_frames=4,
    live_s=0.6,
    history=6,
    warm_s=0.1,
    cache_bytes=2**24,
)
_TEXT: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
    "bos_token_id": None,
    "eos_token_id": None,
}
_TOWER = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 56,
    "patch_size": 14,
}
_ROPE = {"rope_type": "default", "rope_theta": 1e6}
#: Fields that make the published models small, and all else as it is.
SMALL: dict[str, dict[str, Any]] = {
    "llava-onevision-7b": {"text": _TEXT, "vision": _TOWER},
    "qwen2.5-vl-7b": {
        "text": {**_TEXT, "rope_parameters": {**_ROPE, "mrope_section": [2, 3, 3]}},
        "vision": {
            "depth": 3,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "out_hidden_size": 64,
            "window_size": 56,
            "fullatt_block_indexes": [2],
        },
        "longreel": {"picture_size": 84},
    },
}


def served(model: str) -> tuple[AdoptedConfig, ChatLayout]:
    """Config and layout of an open model made small."""
    published = PUBLISHED[model]
    small = published.config(**SMALL[model])
    return weightless.served(published, small, large_open.ROUTER, large_open.KEEP)


@pytest.fixture(params=SMALL)
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def shown(bench: str) -> set[str]:
    """Paths of all figures that the page shows of a bench."""
    section = section_of(bench)
    paths = {claim.path for claim in CLAIMS if claim.bench == bench}
    paths |= {side.path for side in section.sides}
    return paths | ({section.limit_at.path} if section.limit_at else set())


def keep(results: Path, bench: str, settings: Mapping[str, Any], parts: Parts) -> None:
    folder = results / "m"
    folder.mkdir()
    result = {
        "bench": bench,
        "machine": {"processor": "A processor", "cores": 2},
        "commit": "abc",
        "settings": settings,
        "ratios": parts.ratios,
        "figures": parts.figures,
    }
    (folder / f"{bench}.json").write_text(json.dumps(result))


@pytest.mark.parametrize(
    ("model", "billions"), [("llava-onevision-7b", 8.0308), ("qwen2.5-vl-7b", 8.2922)]
)
def test_the_geometry_is_the_published_one(model: str, billions: float) -> None:
    """Guards against a size typed wrong: what the hub says of the published weights, to a digit."""
    with torch.device("meta"):
        made = AutoModelForImageTextToText.from_config(PUBLISHED[model].config())
    assert sum(weight.numel() for weight in made.parameters()) == pytest.approx(
        billions * 1e9, rel=1e-5
    )


@pytest.mark.slow
def test_an_open_model_gives_all_that_the_page_shows(model: str, tmp_path: Path) -> None:
    config, layout = served(model)
    parts = Parts()
    counts = {"mod": (1, 2), "dense": (2,)}
    tried = {name: Tried(name, counts[name], Window(frames=256)) for name in counts}
    large_open.engine_parts(parts, config, layout, EFFORT, tried, CPU, torch.float32)
    assert parts.figures["skipped"] == {}
    spoken = parts.figures["bulk"]["narrations"]
    assert spoken["mod_quiet"] == spoken["dense_quiet"] == 0
    assert spoken["mod"] > 0
    assert spoken["dense"] > 0
    for name in tried:
        assert [each["sessions"] for each in parts.figures["live"][name]] == list(counts[name])
        assert all(each["frames"] and not each["failed"] for each in parts.figures["live"][name])
    bench = of_model("large", model)
    keep(tmp_path, bench, large_open.settings_of(PUBLISHED[model], config, layout, EFFORT), parts)
    (kept,) = read_all(tmp_path)
    missing = {path for path in shown(bench) if kept.spread(path) is None}
    # Memory is asked of the GPU.
    assert all("above_held" in path for path in missing)
    run = f"`python -m bench.large --model {model} --json`"
    assert f"{run}; A processor" in page([kept])
    nothing = " ".join(page([]).split())
    assert f"There is no run on a GPU on record yet: {run} makes one." in nothing


@pytest.mark.slow
def test_the_papers_geometry_gives_its_figures_still(tmp_path: Path) -> None:
    """Guards keys that pages and capacity planning read; a training step needs a GPU."""
    config = VideoLLMMoDConfig(
        vision_config=SiglipVisionConfig(**_TOWER),
        text_config=LlamaConfig(**_TEXT, pad_token_id=None),
        router="bounded",
    )
    mod = weightless.on_device(lambda: VideoLLMMoD(config), CPU, torch.float32).eval()
    parts = Parts()
    tried = {name: Tried(each.model, (1,), each.policy) for name, each in large.LIVE.items()}
    large.engine_parts(parts, mod, EFFORT, tried)
    assert parts.figures["skipped"] == {}
    keep(tmp_path, "large", {"speaks": SPEAKS}, parts)
    (kept,) = read_all(tmp_path)
    missing = {path for path in shown("large") if kept.spread(path) is None}
    assert all("train" in path for path in missing)


def _answered(model: AdoptedModel, layout: ChatLayout, frames: torch.Tensor) -> list[int]:
    engine = engine_of(model, layout, 0.0, EFFORT)
    engine.open("s", max_new_tokens=6, fps=2.0, asked=False)
    engine.push("s", frames)
    engine.ask("s", "q", "What happens?")
    events = []
    while engine.busy:
        events += engine.step()
    assert any(isinstance(event, TurnEnded) for event in events)
    return [event.token for event in events if isinstance(event, Word)]


@pytest.mark.slow
def test_the_plain_loop_says_what_the_engine_says(model: str) -> None:
    """Guards the comparison: both sides compute the same, the router aside."""
    config, layout = served(model)
    dense = weightless.dense_twin(weightless.open_model(config, CPU, torch.float32))
    frames = frames_of(config.image_size, 6)
    with own_attention(dense):
        plain = PlainChat(dense, layout, 2.0)
        plain.watch(frames)
        said = plain.ask("What happens?", 6)
    assert len(set(said)) > 1
    assert said == _answered(dense, layout, frames)


def test_a_stream_fits_the_context(model: str) -> None:
    """Guards against a bulk stream that the engine refuses, or that ends within a step."""
    published = PUBLISHED[model]
    config, layout = weightless.served(
        published, published.config(), large_open.ROUTER, large_open.KEEP
    )
    length = large_open.stream_length(config, layout, 10_000)
    assert config.context is not None
    assert 0.9 * config.context < config.vision_tokens(length) < config.context
    assert length % config.frames_per_step == 0
    assert large_open.stream_length(config, layout, 7) in (7, 8)
    # As the page of open models says of the default window.
    assert large_open.window_frames(config, layout) == (96 if model.startswith("llava") else 256)


def test_one_part_that_fails_costs_no_other() -> None:
    """Guards minutes on a GPU against a part that does not fit its memory."""
    parts = Parts()

    def fails() -> tuple[dict[str, Any], dict[str, Any]]:
        raise torch.OutOfMemoryError("no room\nfor it")

    parts.run("first", fails)
    parts.run("second", lambda: ({"this_over_that": {}}, {"seen": 1}))
    assert parts.figures == {
        "skipped": {"first": "OutOfMemoryError: no room"},
        "second": {"seen": 1},
    }
    assert list(parts.ratios) == ["this_over_that"]
    assert large_open.first_error([{"sessions": 8, "error": "no room"}]) == "no room"
    assert large_open.first_error([{"sessions": 8}, {"sessions": 16, "error": "no room"}]) == ""


def test_models_keep_their_results_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards the paper's figures against a run of another model that takes their place."""

    def measured(value: float) -> Callable[[bool], Any]:
        return lambda quick: ({}, {"this_over_that": harness.ratio([value])}, {"quick": quick})

    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    for chosen in ([], ["--model", "other", "--quick"]):
        monkeypatch.setattr(sys, "argv", ["bench", "--json", *chosen])
        harness.run("large", {"own": measured(1.0), "other": measured(2.0)})
    found = {kept.bench: kept.data for kept in read_all(tmp_path)}
    assert found.keys() == {"large", "large-other"}
    assert found["large"]["ratios"]["this_over_that"]["median"] == 1.0
    assert found["large-other"]["settings"]["quick"]
    assert {path.name for path in tmp_path.glob("*/*")} == {"large.json", "large-other.json"}
    assert command("large-other") == "python -m bench.large --model other --json"
    assert command("large") == "python -m bench.large --json"
    capsys.readouterr()


def test_without_a_gpu_every_part_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against figures of a CPU that look like those of a GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name, measure in large.MODELS.items():
        settings, ratios, figures = measure(True)
        assert (settings, ratios) == ({}, {}), name
        assert set(figures) == {"skipped"}
        assert set(figures["skipped"].values()) == {"no CUDA device"}
