"""Cost and quality of mixture-of-depths training: ``python -m bench.model --json``.

One training step beside the full model's, in time and peak memory; quality of the paper's methods
after equal steps on the generated world; the bundled model on streams nobody trained on. Trainings
take an hour of two cores: with ``LONGREEL_BENCH_PARTS`` each leaves what it found in that folder,
and a bench that was cut off goes on from there.

Every method goes on from the same full model, as the paper's go on from the same language model:
from random weights no method learns in so few steps what would tell them apart.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from actors.heap import give_back_large_blocks
from bench import limits
from bench.harness import most_resident_bytes, ratio, run
from bench.models import LAYERS, WIDTH, wide_config
from mod.batches import IGNORE, Batch, collate
from mod.checkpoint import TINY, find_checkpoint
from mod.config import VideoLLMMoDConfig
from mod.cost import macs
from mod.decoder import Stream
from mod.evaluate import evaluate
from mod.layout import StreamLayout
from mod.loading import load
from mod.metrics import TeacherForced, teacher_forced
from mod.modeling import VideoLLMMoD
from mod.objective import live_loss, stream_of
from mod.world.dialogues import watch

#: The methods of the paper's tables by their config.
METHODS: dict[str, dict[str, Any]] = {
    "full": {"router": "none"},
    "mod 0.1": {"keep_ratio": 0.1},
    "mod 0.2": {"keep_ratio": 0.2},
    "mod 0.3": {"keep_ratio": 0.3},
    "learned 0.2": {"keep_ratio": 0.2, "router": "learned"},
    "random 0.2": {"keep_ratio": 0.2, "router": "random"},
    "uniform 0.2": {"keep_ratio": 0.2, "router": "uniform"},
    "early exit": {"router": "skip", "mod_layers": "after-2"},
    "layer skip": {"router": "skip"},
    # No layer sees every token: here what is kept decides alone.
    "mod all 0.2": {"keep_ratio": 0.2, "mod_layers": "all"},
    "random all 0.2": {"keep_ratio": 0.2, "mod_layers": "all", "router": "random"},
}
#: Why the short form says nothing of quality, though it runs all that the full one does.
NO_VERDICT = "in the full form alone: a training of a few steps tells no methods apart"
#: The seed of the full model that all go on from.
BASE_SEED = 100
#: Seeds of held-out streams; training streams have others.
HELD_OUT, TRAINED = 7_000_000, 8_000_000


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        step_frames: of the stream of a timed step.
        step_runs, peak_runs: steps that are timed, and whose memory is.
        seeds: of the trainings of each method.
        base_steps, steps: of the full model, and of each method after it.
        streams, held_out: trained on, and measured on.
    """

    step_frames: int
    step_runs: int
    peak_runs: int
    seeds: int
    base_steps: int
    steps: int
    streams: int
    held_out: int


QUICK = Effort(
    # As long as in the full form: how much of a step routing saves depends on it.
    step_frames=600,
    step_runs=3,
    peak_runs=1,
    seeds=1,
    base_steps=12,
    steps=8,
    streams=24,
    held_out=8,
)
FULL = Effort(
    step_frames=600,
    step_runs=5,
    peak_runs=3,
    seeds=3,
    base_steps=600,
    steps=300,
    streams=800,
    held_out=80,
)


def step_model(router: str) -> VideoLLMMoD:
    """A model whose layers dominate, with random weights."""
    torch.manual_seed(0)
    return VideoLLMMoD(wide_config(1024, router=router)).train()


def train_step(model: VideoLLMMoD, frames: int) -> None:
    """Forward and backward over one stream of ``frames`` frames with their silence tokens."""
    n = model.config.tokens_per_frame
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(frames, n, 64, generator=generator)
    starts = torch.arange(frames) * (n + 1)
    places = (starts[:, None] + torch.arange(n)).flatten()
    length = frames * (n + 1)
    words = model.embed_text(torch.zeros(length, dtype=torch.long))
    embeddings = words.index_copy(0, places, model.connector(features).flatten(0, 1))
    hidden = model(Stream(embeddings, torch.arange(length), starts, [length]))
    labels = torch.randint(0, 1024, (frames,), generator=generator)
    torch.autograd.backward(live_loss(model.logits(hidden[starts + n - 1]), labels, 0))
    model.zero_grad()


def step_times(runs: int, frames: int) -> dict[str, list[float]]:
    """Seconds of a step of both models, in turn; the first of each warms up."""
    models = {router: step_model(router) for router in ("none", "bounded")}
    seconds: dict[str, list[float]] = {router: [] for router in models}
    for _ in range(runs + 1):
        for router, model in models.items():
            started = time.perf_counter()
            train_step(model, frames)
            seconds[router].append(time.perf_counter() - started)
    return {router: values[1:] for router, values in seconds.items()}


def step_flops_per_s(seconds: dict[str, list[float]], frames: int) -> dict[str, float]:
    """Arithmetic of the decoder's linear layers in a step, by router: forward, and twice as much
    backward. Attention, tower and head come on top, so it is less than all that was done."""
    return {
        f"step_{router}": 3
        * 2
        * macs(wide_config(1024, router=router), frames, frames)
        / statistics.median(times)
        for router, times in seconds.items()
    }


def _peak_bytes(router: str, frames: int, results: Any) -> None:
    torch.set_num_threads(1)
    # Else what the peak is depends on the holes that freed tensors leave in the heap.
    give_back_large_blocks()
    model = step_model(router)
    before = most_resident_bytes()
    train_step(model, frames)
    results.put(most_resident_bytes() - before)


def peak_bytes(router: str, frames: int) -> int:
    """How much a step raises the resident memory of a process that holds the model."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=_peak_bytes, args=(router, frames, results))
    process.start()
    peak: int = results.get(timeout=600)
    process.join()
    return peak


#: A model's parameters by name.
Weights = dict[str, Tensor]


class World:
    """Dialogues with the features that the bundled tower gives their frames.

    The tower is frozen and shared, so that methods differ in their decoder alone.
    """

    def __init__(self, tiny: VideoLLMMoD, layout: StreamLayout, seeds: Iterable[int]) -> None:
        self.dialogues = [watch(seed, 16) for seed in seeds]
        self.layout = layout
        self._seen: list[tuple[Tensor, Tensor]] = []
        with torch.no_grad():
            for dialogue in self.dialogues:
                batch = collate([dialogue], layout, tiny.config)
                self._seen.append(tiny.see(batch.frames, batch.before))

    def batch(self, chosen: list[int], config: VideoLLMMoDConfig) -> tuple[Batch, Tensor, Tensor]:
        """Some dialogues laid out for ``config``, and their patch and pooled features."""
        patches, pooled = zip(*(self._seen[i] for i in chosen), strict=True)
        dialogues = [self.dialogues[i] for i in chosen]
        return collate(dialogues, self.layout, config), torch.cat(patches), torch.cat(pooled)


def method_config(fields: dict[str, Any], tiny: VideoLLMMoD) -> VideoLLMMoDConfig:
    """The bundled model's sizes, routed by a method."""
    return VideoLLMMoDConfig(
        vision_config=tiny.config.vision_config,
        text_config=tiny.config.text_config,
        # What is seen must come from the patches: the pooled token would carry it past any router.
        class_token="none",
        frame_difference=tiny.config.frame_difference,
        **{"router": "bounded", **fields},
    )


def train_method(
    fields: dict[str, Any], tiny: VideoLLMMoD, weights: Weights, world: World, steps: int, seed: int
) -> VideoLLMMoD:
    """A decoder that goes on from ``weights`` behind the frozen tower, by the LIVE objective."""
    torch.manual_seed(seed)
    config = method_config(fields, tiny)
    model = VideoLLMMoD(config)
    model.load_state_dict(
        {name: weights.get(name, value) for name, value in model.state_dict().items()}
    )
    model.vision_tower.requires_grad_(False)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=3e-3, betas=(0.9, 0.98), weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 3e-3, total_steps=steps, pct_start=0.1
    )
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        chosen = [int(i) for i in rng.integers(0, len(world.dialogues), 8)]
        batch, patches, pooled = world.batch(chosen, config)
        hidden = model(stream_of(model, batch, model.connect(patches, pooled)))
        asked = (batch.labels != IGNORE).nonzero()[:, 0]
        loss = live_loss(model.logits(hidden[asked]), batch.labels[asked], world.layout.silence)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
    return model.eval()


def costs(tiny: VideoLLMMoD) -> dict[str, float]:
    """Arithmetic of each method's decoder over the full one's, on a silent stream."""
    each = {name: macs(method_config(fields, tiny), 16, 16) for name, fields in METHODS.items()}
    return {name: cost / each["full"] for name, cost in each.items()}


#: The metrics that are compared, and whether less is better.
LESS_IS_BETTER = {"lm_ppl": True, "time_diff_s": True, "fluency": False, "lm_correctness": False}


def losses(metrics: TeacherForced, full: Sequence[TeacherForced]) -> dict[str, float]:
    """Relative loss of each metric against the full model's mean over its seeds."""
    found = {}
    for name, less in LESS_IS_BETTER.items():
        mean = statistics.fmean(getattr(one, name) for one in full)
        share = getattr(metrics, name) / max(1e-9, mean)
        found[name] = share - 1.0 if less else 1.0 - share
    return found


def mean_losses(runs: Sequence[TeacherForced], full: Sequence[TeacherForced]) -> dict[str, float]:
    """The same for the mean over seeds, which varies less."""
    each = [losses(metrics, full) for metrics in runs]
    return {name: statistics.fmean(one[name] for one in each) for name in LESS_IS_BETTER}


class Quality:
    """What every training of a method shares; one of it in each process."""

    one: ClassVar[Quality]

    def __init__(self, effort: Effort) -> None:
        torch.set_num_threads(1)
        self.effort = effort
        self.tiny, self.layout = load(find_checkpoint(TINY))
        self.world = World(self.tiny, self.layout, range(TRAINED, TRAINED + effort.streams))
        self.held_out = [watch(HELD_OUT + i, 16) for i in range(effort.held_out)]

    @classmethod
    def begin(cls, effort: Effort) -> None:
        """Set this process up."""
        cls.one = cls(effort)


@contextmanager
def parts_folder(effort: Effort) -> Iterator[Path]:
    """Where parts of the measurement are left, and found by one that goes on."""
    with tempfile.TemporaryDirectory() as passing:
        parts = Path(os.environ.get("LONGREEL_BENCH_PARTS", passing))
        parts /= f"{effort.base_steps} and {effort.steps} steps"
        parts.mkdir(parents=True, exist_ok=True)
        yield parts


def train_base(path: Path) -> None:
    """Leave the full model that all methods go on from, trained on from the bundled one."""
    if path.exists():
        return
    q = Quality.one
    torch.set_num_threads(os.cpu_count() or 1)
    weights, steps = q.tiny.state_dict(), q.effort.base_steps
    model = train_method(METHODS["full"], q.tiny, weights, q.world, steps, BASE_SEED)
    draft = path.with_suffix(".draft")
    torch.save(model.state_dict(), draft)
    draft.rename(path)
    torch.set_num_threads(1)


def _trained(task: tuple[str, int, Path]) -> TeacherForced:
    """The metrics of one method after training from one seed."""
    name, seed, base = task
    q = Quality.one
    part = base.parent / f"{name} {seed}.json"
    if part.exists():
        return TeacherForced(**json.loads(part.read_text()))
    weights = torch.load(base)
    model = train_method(METHODS[name], q.tiny, weights, q.world, q.effort.steps, seed)
    metrics = teacher_forced(model, q.layout, q.held_out)
    part.write_text(json.dumps(asdict(metrics)))
    return metrics


def quality(effort: Effort) -> dict[str, list[TeacherForced]]:
    """The metrics of each method, one a seed; a training on each core."""
    tasks = [(name, seed) for seed in range(effort.seeds) for name in METHODS]
    context = multiprocessing.get_context("spawn")
    with parts_folder(effort) as parts:
        base = parts / "base.pt"
        with context.Pool(os.cpu_count(), Quality.begin, (effort,)) as pool:
            pool.apply(train_base, (base,))
            results = pool.map(_trained, [(*task, base) for task in tasks], chunksize=1)
    found: dict[str, list[TeacherForced]] = {}
    for (name, _), metrics in zip(tasks, results, strict=True):
        found.setdefault(name, []).append(metrics)
    return found


def measure(quick: bool) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """All parts, one thread each: the ratios do not depend on how many streams run beside."""
    effort = QUICK if quick else FULL
    torch.set_num_threads(1)
    most = limits.measured()
    seconds = step_times(effort.step_runs, effort.step_frames)
    times = [m / f for m, f in zip(seconds["bounded"], seconds["none"], strict=True)]
    peaks: dict[str, list[int]] = {"none": [], "bounded": []}
    for _ in range(effort.peak_runs):
        for router, found_bytes in peaks.items():
            found_bytes.append(peak_bytes(router, effort.step_frames))
    found = quality(effort)
    full = found["full"]
    # Full beside its own mean: how far chance alone takes a method.
    gaps = {
        name: [max(losses(metrics, full).values()) for metrics in runs]
        for name, runs in found.items()
    }
    tiny, layout = load(find_checkpoint(TINY))
    bundled = evaluate(tiny, layout, n_streams=effort.held_out, first_seed=HELD_OUT)
    worst = {
        "quality_mod_worst_gap": ratio(gaps["mod 0.2"]),
        "quality_random_worst_gap": ratio(gaps["random 0.2"]),
        "quality_earlyexit_worst_gap": ratio(gaps["early exit"]),
        "quality_layerskip_worst_gap": ratio(gaps["layer skip"]),
        "quality_mod_all_worst_gap": ratio(gaps["mod all 0.2"]),
        "quality_random_all_worst_gap": ratio(gaps["random all 0.2"]),
    }
    ratios = {
        "train_time_mod_over_full": ratio(times),
        "train_memory_mod_over_full": ratio(
            [m / f for m, f in zip(peaks["bounded"], peaks["none"], strict=True)]
        ),
        **({} if quick else worst),
        "tiny_cut_f1": ratio([bundled.cut_f1]),
        "tiny_colour_accuracy": ratio([bundled.colour_accuracy]),
    }
    settings = {
        "step": {
            "frames": effort.step_frames,
            "width": WIDTH,
            "layers": LAYERS,
            "tokens": effort.step_frames * 11,
        },
        "quality": asdict(effort),
    }
    figures = {
        "step_seconds": {name: statistics.median(s) for name, s in seconds.items()},
        "step_peak_bytes": {name: statistics.median(b) for name, b in peaks.items()},
        "methods": {name: [asdict(metrics) for metrics in runs] for name, runs in found.items()},
        "cost_over_full": costs(tiny),
        "worst_gaps": gaps,
        "mean_losses": {name: mean_losses(runs, full) for name, runs in found.items()},
        "tiny": asdict(bundled),
        "limits": limits.beside(most, step_flops_per_s(seconds, effort.step_frames)),
        "skipped": dict.fromkeys(worst, NO_VERDICT) if quick else {},
    }
    return settings, ratios, figures


if __name__ == "__main__":
    run("model", measure)
