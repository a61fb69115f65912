"""Train a model on Ray Train: any number of workers, states from which a killed run goes on."""

from __future__ import annotations

import gc
import json
import tempfile
import threading
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import ray
import torch
from ray import train as ray_train
from ray.train.torch import TorchConfig, TorchTrainer
from torch import nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from actors.objects import (
    arrow_filesystem,
    exists,
    join_uri,
    located,
    read_bytes,
    write_bytes,
)
from longreel.errors import LongreelError, UsageError
from mod.checkpoint import located_model
from mod.decoder import RoutedDecoder
from mod.dialogue import Dialogue
from mod.evaluate import evaluate
from mod.layout import Layout, StreamLayout
from mod.metrics import teacher_forced
from mod.modeling import VideoLLMMoD
from mod.narrations import narrations
from mod.recipe import NEW_TINY, TrainRecipe, recipe_of
from mod.sequences import Batches
from mod.start import check_start, start
from mod.train import save
from mod.trainer import Trainer
from mod.weights import TooLargeError
from pipelines.background import in_background
from pipelines.cluster import connected
from pipelines.curves import CURVE, Curves
from pipelines.footage import read_narrations
from pipelines.lessons import lessons
from pipelines.local import starts_one
from pipelines.resources import here, lacking

#: Files of an output beside the checkpoint's own.
RECIPE, METRICS, STATE = "recipe.json", "metrics.json", "state.pt"


@dataclass(frozen=True)
class Told:
    """One thing a run has to say: a line of its curve, a remark, or the metrics at its end."""

    kind: str
    values: dict[str, Any]


def train(
    recipe: TrainRecipe, output: str, report: Callable[[Told], None], address: str | None = None
) -> dict[str, Any]:
    """Train by ``recipe`` and leave the checkpoint, its curves and its metrics in ``output``.

    Run again after a kill, it goes on from the last saved state.

    Args:
        output: a folder that all workers share, or an ``s3://`` prefix.
        report: told of progress.
        address: of a Ray cluster; None starts one here.

    Returns:
        The metrics, also in ``metrics.json``.

    Raises:
        UsageError: the recipe or its narrations cannot work, or ``output`` holds a run of another.
        StorageError: the narrations or ``output`` cannot be read.
        LongreelError: the run failed more often than ``scale.retries`` allows.
    """
    check_start(recipe)
    # Workers have working folders of their own.
    recipe, output = _located(recipe), located(output)
    finished = exists(join_uri(output, METRICS))
    if recipe.data.narrations and not finished:
        # For what is wrong with them: a worker says it only when the cluster has started.
        read_narrations(recipe.data.narrations)
    alone = starts_one(address) and not ray.is_initialized()
    scale = recipe.scale
    if alone and not finished and (short := lacking(scale.workers, scale.gpus_per_worker, here())):
        raise UsageError(f"scale.workers: {short}")
    _claim(recipe, output)
    if finished:
        report(Told("remark", {"text": f"{output} holds this run, finished"}))
        return dict(json.loads(read_bytes(join_uri(output, METRICS))))
    with connected(address):
        if short := lacking(scale.workers, scale.gpus_per_worker, ray.cluster_resources()):
            report(Told("remark", {"text": f"waiting for more nodes: {short}"}))
        mailbox = ray.remote(num_cpus=0)(_Mailbox).remote()
        done = threading.Event()
        listener = threading.Thread(target=_listen, args=(mailbox, report, done), daemon=True)
        listener.start()
        try:
            _fit(recipe, output, mailbox)
        finally:
            done.set()
            listener.join(timeout=10)
    return dict(json.loads(read_bytes(join_uri(output, METRICS))))


def _located(recipe: TrainRecipe) -> TrainRecipe:
    """The recipe as it reads from any working folder."""
    model, data = recipe.model, recipe.data
    if model.start != NEW_TINY:
        model = replace(model, start=located_model(model.start))
    narrations = [located(uri) for uri in data.narrations]
    return replace(recipe, model=model, data=replace(data, narrations=narrations))


def _claim(recipe: TrainRecipe, output: str) -> None:
    """Record the recipe in a new output, or see that it is the one there."""
    file = join_uri(output, RECIPE)
    mine = recipe.as_dict()
    if not exists(file):
        for other in ("config.json", CURVE):
            if exists(join_uri(output, other)):
                raise UsageError(
                    f"{output} holds {other} of another model or run; name another output"
                )
        write_bytes(file, json.dumps(mine, indent=2).encode())
        return
    theirs = recipe_of(json.loads(read_bytes(file)), file).as_dict()
    for part, values in mine.items():
        for name, value in values.items():
            # Where a run goes on may change; what it computes may not.
            if part != "scale" and theirs[part][name] != value:
                raise UsageError(
                    f"{output} holds a run with {part}.{name} = {theirs[part][name]!r}, "
                    f"not {value!r}; name another output"
                )


def _fit(recipe: TrainRecipe, output: str, mailbox: Any) -> None:
    filesystem, path = arrow_filesystem(output)
    on_gpu = recipe.scale.gpus_per_worker > 0
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"recipe": recipe.as_dict(), "output": output, "mailbox": mailbox},
        torch_config=TorchConfig(backend="nccl" if on_gpu else "gloo"),
        scaling_config=ray_train.ScalingConfig(
            num_workers=recipe.scale.workers,
            use_gpu=on_gpu,
            resources_per_worker={"CPU": 1} | ({"GPU": 1} if on_gpu else {}),
        ),
        run_config=ray_train.RunConfig(
            name="states",
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=ray_train.FailureConfig(max_failures=recipe.scale.retries),
            checkpoint_config=ray_train.CheckpointConfig(num_to_keep=2),
            logging_config=ray_train.LoggingConfig(log_level="CRITICAL"),
        ),
    )
    try:
        # Not in the main thread, where Ray Train takes Ctrl-C for itself and ends in a traceback.
        in_background(trainer.fit).result()
    except ray_train.TrainingFailedError as failure:
        reason = str(failure).strip().splitlines()[-1]
        raise LongreelError(f"the training failed: {reason}") from None


class _Mailbox:
    """Carries what workers say to the process that started them."""

    def __init__(self) -> None:
        self._told: list[Told] = []

    def put(self, told: Told) -> None:
        self._told.append(told)

    def take(self) -> list[Told]:
        told, self._told = self._told, []
        return told


def _listen(mailbox: Any, report: Callable[[Told], None], done: threading.Event) -> None:
    while True:
        last = done.wait(0.5)
        for told in ray.get(mailbox.take.remote()):
            report(told)
        if last:
            return


def _worker(config: dict[str, Any]) -> None:
    """What one training worker does; the first measures what came of it."""
    recipe, output = recipe_of(config["recipe"], "recipe"), config["output"]
    rank = ray_train.get_context().get_world_rank()
    mailbox = config["mailbox"] if rank == 0 else None
    torch.set_num_threads(recipe.scale.threads)
    with tempfile.TemporaryDirectory() as name:
        held_out = _learn(recipe, output, Path(name), rank, mailbox)
        if rank:
            return
        # A model as users load it needs the room that training took.
        gc.collect()
        torch.cuda.empty_cache()
        _measure(recipe, name, held_out, output, mailbox)


def _learn(
    recipe: TrainRecipe, output: str, folder: Path, rank: int, mailbox: Any
) -> Iterable[Dialogue]:
    """Train, and on the first worker leave the checkpoint in ``folder`` and ``output``.

    Returns:
        What to measure it on. Nothing else of the training outlasts it.
    """
    device = ray_train.torch.get_device()
    model, layout = start(recipe, device)
    source, held_out = lessons(
        recipe, model.config, lambda text: _tell(mailbox, "remark", text=text)
    )
    trainer = Trainer(
        recipe,
        model,
        layout.silence,
        device=device,
        wrap=_wrapper(
            recipe.scale.strategy,
            ray_train.get_context().get_world_size(),
            uneven=recipe.data.read_share > 0,
        ),
    )
    checkpoint = ray_train.get_checkpoint()
    if checkpoint:
        with checkpoint.as_directory() as saved:
            trainer.restore(torch.load(Path(saved) / STATE, map_location="cpu"))
        _tell(mailbox, "remark", text=f"going on after step {trainer.step_number}")
    batches = Batches(
        recipe,
        source,
        layout,
        model.config,
        model.places(float(model.config.fps)),
        start=trainer.step_number,
        rank=rank,
    )
    curves = Curves(output, trainer.step_number) if rank == 0 else None
    for batch in DataLoader(batches, batch_size=None, num_workers=1):
        results = trainer.step(batch)
        line = curves.add(trainer.step_number, results) if curves else None
        if line:
            _tell(mailbox, "curve", **line, steps=recipe.training.steps)
        # After the last step too: whoever fails to measure it learns nothing again.
        last = trainer.step_number == recipe.training.steps
        if last or trainer.step_number % recipe.training.save_every == 0:
            _save_state(trainer, rank)
            if curves:
                curves.publish()
    weights = trainer.plain_weights()
    if curves:
        curves.publish()
        save(model, weights, layout.tokenizer, folder)
        for file in folder.iterdir():
            write_bytes(join_uri(output, file.name), file.read_bytes())
    return held_out


def _tell(mailbox: Any, kind: str, **values: Any) -> None:
    if mailbox is not None:
        ray.get(mailbox.put.remote(Told(kind, values)))


def _wrapper(
    strategy: str, workers: int, *, uneven: bool
) -> Callable[[nn.Module, torch.device], nn.Module]:
    """How an objective is put on the devices of all workers.

    Args:
        uneven: the workers' batches of one step may use different weights.
    """

    def wrap(objective: nn.Module, device: torch.device) -> nn.Module:
        if workers == 1:
            return objective.to(device)
        if strategy == "ddp":
            return DistributedDataParallel(objective.to(device), find_unused_parameters=True)
        # Each shard goes to its device by itself: the whole may be larger than one.
        for layer in objective.model.decoder.layers:  # type: ignore[union-attr]
            fully_shard(layer)
        fully_shard(objective)
        # A worker whose batch has no frames uses fewer weights than the others, which wait for it.
        assert isinstance(objective, FSDPModule)
        objective.set_reduce_scatter_unused_params(uneven)
        return objective

    return wrap


def _save_state(trainer: Trainer, rank: int) -> None:
    state = trainer.state()
    if rank:
        ray_train.report({"step": trainer.step_number})
        return
    with tempfile.TemporaryDirectory() as folder:
        torch.save(state, Path(folder) / STATE)
        ray_train.report(
            {"step": trainer.step_number}, checkpoint=ray_train.Checkpoint.from_directory(folder)
        )


def _measure(
    recipe: TrainRecipe, folder: str, held_out: Iterable[Dialogue], output: str, mailbox: Any
) -> None:
    """Measure the checkpoint in ``folder`` as a user would load it; its metrics end the run."""
    from mod.checkpoint import find_checkpoint
    from mod.loading import load_any

    metrics: dict[str, Any] = {"steps": recipe.training.steps}
    # Not on all GPUs of the node: others may still train, or have trained, on theirs.
    device = ray_train.torch.get_device()
    try:
        trained, layout = load_any(find_checkpoint(folder), device=device)
    except TooLargeError as failure:
        # In shards a model is trained that is larger than any one GPU; others fit a moment ago.
        if recipe.scale.workers == 1 or recipe.scale.strategy != "fsdp2":
            raise
        _tell(mailbox, "remark", text=f"nothing was measured: {failure}")
    else:
        metrics |= _measured(recipe, trained, layout, held_out, mailbox)
    write_bytes(join_uri(output, METRICS), json.dumps(metrics, indent=2).encode())
    _tell(mailbox, "metrics", **metrics)


def _measured(
    recipe: TrainRecipe,
    trained: RoutedDecoder,
    layout: Layout,
    held_out: Iterable[Dialogue],
    mailbox: Any,
) -> dict[str, Any]:
    metrics: dict[str, Any] = {}
    if layout.asking is None:
        try:
            told = narrations(trained, layout, held_out)
        except RuntimeError as failure:
            # A model that learned nothing may speak without end; its other figures still count.
            _tell(mailbox, "remark", text=f"narrations were not measured: {failure}")
        else:
            metrics |= {"narrations": asdict(told)} if told.true else {}
    measured = teacher_forced(trained, layout, held_out)
    if measured.turns:
        metrics["teacher_forced"] = asdict(measured)
    n_streams = recipe.training.evaluate_streams
    if isinstance(trained, VideoLLMMoD) and not recipe.data.narrations and n_streams:
        assert isinstance(layout, StreamLayout)
        try:
            metrics["self_conditioned"] = asdict(evaluate(trained, layout, n_streams=n_streams))
        except RuntimeError as failure:
            _tell(mailbox, "remark", text=f"what it says was not measured: {failure}")
    return metrics
