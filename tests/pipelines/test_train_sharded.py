"""Two processes that train shards of one model, as several GPUs do, without Ray."""

from __future__ import annotations

import multiprocessing
import socket
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from mod.batches import collate
from mod.dialogue import Dialogue, Turn
from mod.recipe import TrainingPart, TrainRecipe
from mod.trainer import Trainer
from pipelines.train import _wrapper
from tests.mod.small import small_layout, small_model, some_frames

pytestmark = pytest.mark.long
STEPS = 2
#: Routers, with the frames of each process's batches.
FRAMES = {"attention": (3, 3), "bounded": (3, 0)}


def _port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _dialogue(frames: int, step: int) -> Dialogue:
    """One with ``frames``, or one of words alone."""
    if not frames:
        return Dialogue(some_frames(0).numpy(), [], (Turn(0, "What?", "A scene.", "A cut."),))
    return Dialogue(some_frames(frames, step).numpy(), ["A scene.", *[None] * (frames - 1)])


def _learned(strategy: str, router: str, frames: int) -> list[float]:
    """Norms of the gradients, step by step, of batches with so many frames in this process."""
    recipe = TrainRecipe(training=TrainingPart(steps=STEPS, see_steps=0, warmup=1))
    model = small_model(router=router)
    layout = small_layout(model.config)
    wrap = _wrapper(strategy, 2, uneven=True)
    trainer = Trainer(recipe, model, layout.silence, wrap=wrap)
    batches = [
        collate([_dialogue(frames, step)], layout, model.config, model.places(2.0))
        for step in range(STEPS)
    ]
    return [trainer.step(batch)["norm"] for batch in batches]


def _worker(rank: int, port: int, to: str) -> None:
    dist.init_process_group(
        "gloo",
        f"tcp://127.0.0.1:{port}",
        world_size=2,
        rank=rank,
        timeout=timedelta(seconds=30),
    )
    torch.set_num_threads(1)
    told = {
        (strategy, router): _learned(strategy, router, frames[rank])
        for router, frames in FRAMES.items()
        for strategy in ("ddp", "fsdp2")
    }
    if not rank:
        torch.save(told, to)
    dist.destroy_process_group()


def test_shards_learn_what_whole_models_do(tmp_path: Path) -> None:
    """Guards batches without frames beside others, and routers that read a layer's weights."""
    context, port = multiprocessing.get_context("spawn"), _port()
    workers = [
        context.Process(target=_worker, args=(rank, port, str(tmp_path / "told")))
        for rank in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    told = torch.load(tmp_path / "told")
    for router in FRAMES:
        assert told["fsdp2", router] == pytest.approx(told["ddp", router], rel=1e-3)
