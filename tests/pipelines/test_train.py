"""Training on Ray: several workers, killed and resumed, on the world and on own footage."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow.dataset as ds
import pytest
import torch
from ray import serve
from safetensors.torch import load_file

from infra.openmodels import reference
from longreel.errors import LongreelError, UsageError
from longreel.training import TrainingView
from mod.checkpoint import find_checkpoint
from mod.engine.viewer import Viewer
from mod.loading import load
from mod.recipe import read_recipe
from pipelines.cluster import connected
from pipelines.job import SummarizeRequest
from pipelines.summarize import summarize
from pipelines.train import train
from tests.mod.small import some_frames
from tests.pipelines.test_footage import write_footage

pytestmark = [pytest.mark.slow, pytest.mark.ray]
RECIPE = """
[data]
batch_frames = 16
frames = [8]
long_frames = 8

[training]
steps = {steps}
see_steps = 6
see_frames = 4
warmup = 2
save_every = 4
evaluate_streams = 2

[scale]
workers = {workers}
strategy = "{strategy}"
"""


def _recipe(
    folder: Path, name: str, steps: int = 12, workers: int = 1, strategy: str = "ddp"
) -> Path:
    file = folder / f"{name}.toml"
    file.write_text(RECIPE.format(steps=steps, workers=workers, strategy=strategy))
    return file


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """One cluster for all runs but the one that is killed with its own."""
    with connected():
        yield


def _run(recipe: Path, output: Path) -> list[str]:
    """Train, and return what was said."""
    said: list[str] = []
    view = TrainingView(said.append)
    view.metrics(train(read_recipe(recipe), str(output), lambda t: view.show(t.kind, t.values)))
    return said


def _weights(output: Path) -> dict[str, torch.Tensor]:
    return load_file(output / "model.safetensors")


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "longreel.cli", "train", *arguments]


@contextmanager
def _until_saved(recipe: Path, output: Path) -> Iterator[subprocess.Popen[str]]:
    """A run as a command, once it has saved a state."""
    snapshot = output / "states" / "checkpoint_manager_snapshot.json"
    before = snapshot.read_text() if snapshot.exists() else ""
    process = subprocess.Popen(
        _command("--config", str(recipe), "--output", str(output)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 300
    try:
        while not snapshot.exists() or snapshot.read_text() in ("", before):
            assert process.poll() is None, "the run ended before it saved anything"
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.long
def test_a_killed_run_ends_with_the_weights_of_one_that_was_not(tmp_path: Path) -> None:
    """Guards resume: state, data order and schedule all go on where they were."""
    recipe = _recipe(tmp_path, "whole", steps=40)
    said = _run(recipe, tmp_path / "whole")
    assert said[0].startswith("step 20 of 40, ")
    assert said[-2].startswith("teacher-forced: lm_ppl")
    assert said[-1].startswith("self-conditioned: cut_precision")
    killed = tmp_path / "killed"
    with _until_saved(recipe, killed) as process:
        process.send_signal(signal.SIGINT)
        _, said_last = process.communicate(timeout=180)
    assert process.returncode == 130
    assert said_last.splitlines()[-1] == "longreel: interrupted; the same command goes on from here"
    assert "Traceback" not in said_last
    with _until_saved(recipe, killed) as process:
        os.killpg(process.pid, signal.SIGKILL)
    assert not (killed / "metrics.json").exists()
    assert any("going on after step" in line for line in _run(recipe, killed))
    ours, theirs = _weights(killed), _weights(tmp_path / "whole")
    assert set(ours) == set(theirs)
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor), name
    steps = [json.loads(line)["step"] for line in (killed / "training.jsonl").open()]
    assert steps == [20, 40]
    assert list((killed / "curves").glob("events.out.tfevents.*"))
    assert "holds this run, finished" in _run(recipe, killed)[0]
    with pytest.raises(UsageError, match=r"training.steps = 40, not 41"):
        _run(_recipe(tmp_path, "other", steps=41), killed)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
@pytest.mark.long
def test_two_workers_train_one_model(tmp_path: Path, strategy: str) -> None:
    """Guards against shards that are saved as if they were the whole."""
    output = tmp_path / "out"
    _run(_recipe(tmp_path, strategy, workers=2, strategy=strategy), output)
    model, layout = load(find_checkpoint(str(output)))
    assert len(Viewer(model, layout, max_new_tokens=2).watch(some_frames(3, size=96))) == 3
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["teacher_forced"]["turns"] > 2


def test_own_footage_with_lora_starts_from_the_bundled_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its paths are relative: guards against workers that look for them in folders of their own."""
    rows = Path(write_footage(tmp_path)).relative_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "own.toml"
    recipe.write_text(
        f"""
        [model]
        start = "longreel-tiny"
        train = "lora"
        lora_rank = 4
        [data]
        narrations = ["{rows}"]
        frames = [6]
        batch_frames = 12
        held_out = 0.5
        augment = 0.3
        [training]
        steps = 6
        see_steps = 0
        warmup = 2
        learning_rate = 1e-3
        """
    )
    said = _run(recipe, Path("out"))
    assert said[-2].startswith("narrations: precision ")
    assert said[-1].startswith("teacher-forced: lm_ppl")
    before, after = _weights(find_checkpoint("longreel-tiny").folder), _weights(tmp_path / "out")
    assert set(before) == set(after)
    changed = {name for name in before if not before[name].equal(after[name])}
    assert not any("vision" in name for name in changed)
    assert any("q_proj" in name for name in changed)


@pytest.mark.parametrize(("family", "strategy"), [("qwen3_vl", "ddp"), ("smolvlm", "fsdp2")])
@pytest.mark.long
def test_own_footage_adapts_an_open_model(tmp_path: Path, family: str, strategy: str) -> None:
    """Guards what a user does with an open model: train routers on two workers, then summarize."""
    published, output = tmp_path / "published", tmp_path / "out"
    published.mkdir()
    reference.make(family, published)
    rows = write_footage(tmp_path)
    recipe = tmp_path / "open.toml"
    recipe.write_text(
        f"""
        [model]
        start = "{published}"
        train = "lora"
        lora_rank = 4
        keep_ratio = 0.5
        router = "bounded:after-1"
        [data]
        narrations = ["{rows}"]
        frames = [4]
        batch_frames = 8
        held_out = 0.5
        [training]
        steps = 6
        see_steps = 0
        warmup = 2
        learning_rate = 1e-3
        save_every = 4
        gradient_checkpointing = true
        [scale]
        workers = 2
        strategy = "{strategy}"
        """
    )
    said = _run(recipe, output)
    assert said[-1].startswith("teacher-forced: lm_ppl")
    assert "time_diff" not in said[-1]
    checkpoint = find_checkpoint(str(output))
    assert (checkpoint.kind, checkpoint.router, checkpoint.keep_ratio) == (family, "bounded", 0.5)
    before, after = _weights(published), _weights(output)
    assert set(before) == set(after)
    changed = {
        name for name in before if not before[name].to(torch.bfloat16).equal(after[name].bfloat16())
    }
    assert changed
    assert all("_proj" in name and "visi" not in name for name in changed)
    job = SummarizeRequest((str(tmp_path / "a.mp4"),), str(tmp_path / "rows"), str(output))
    try:
        summarize(job, lambda *_: None)
    finally:
        serve.shutdown()
    (row,) = ds.dataset(tmp_path / "rows" / "segments").to_table().to_pylist()
    assert (row["status"], row["model_revision"]) == ("ok", checkpoint.revision)


@pytest.mark.parametrize("rows", [None, "", '{"uri": "a.mp4", "time_s": 1.0}'])
def test_bad_narrations_are_refused_before_the_output_is_claimed(
    tmp_path: Path, rows: str | None
) -> None:
    """Guards against a cluster that is started, and a folder that is left, for a slip of a pen."""
    file = tmp_path / "rows.jsonl"
    if rows is not None:
        file.write_text(rows)
    recipe = tmp_path / "own.toml"
    recipe.write_text(f'[data]\nnarrations = ["{file}"]\n[training]\nsee_steps = 0')
    with pytest.raises(LongreelError, match=r"rows\.jsonl"):
        _run(recipe, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("there", ["config.json", "training.jsonl"])
def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path, there: str) -> None:
    """Guards against a checkpoint that is written over, and a run that reads another's curve."""
    output = tmp_path / "out"
    output.mkdir()
    (output / there).write_text("{}")
    with pytest.raises(UsageError, match=rf"{there} .* name another output"):
        _run(_recipe(tmp_path, "mine"), output)
    assert [file.name for file in output.iterdir()] == [there]


def test_a_bad_recipe_is_one_line(tmp_path: Path) -> None:
    """Guards against a traceback, and a cluster that is started, for a misspelled field."""
    recipe = tmp_path / "bad.toml"
    recipe.write_text("[training]\nstep = 5")
    done = subprocess.run(
        _command("--config", str(recipe), "--output", str(tmp_path / "out")),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "[training] has no field 'step'" in done.stderr
    assert not (tmp_path / "out").exists()
