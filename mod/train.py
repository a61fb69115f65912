"""Train ``longreel-tiny`` from generated video: ``python -m mod.train --output FOLDER``.

Needs nothing but a CPU; every sequence is rendered from its seed, so that a run can be repeated.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from mod.batches import Batch, collate
from mod.layout import StreamLayout, train_tokenizer
from mod.modeling import VideoLLMMoD
from mod.objective import Perception, losses
from mod.tiny import tiny_config
from mod.world.dialogues import corpus, look, read, watch


@dataclass(frozen=True)
class Recipe:
    """What fixes a training run, beside the code.

    Attributes:
        see_steps: the first steps, which teach perception alone, on short silent streams: motion
            is found by comparing a place with itself one frame before, and that is far easier
            to discover while the distance between the two is always the same.
        see_frames: frames of a sequence in those steps.
        steps: all steps, those included.
        frames: lengths of a sequence, in frames; each batch draws one. A tenth of the batches is
            ``long_frames`` long, so that the model also works far from where a stream opened.
        batch_frames: vision frames of one batch.
        read_share: share of batches without frames, which teach to summarize summaries.
    """

    seed: int = 0
    see_steps: int = 300
    see_frames: int = 6
    steps: int = 1800
    frames: tuple[int, ...] = (8, 12, 16, 24)
    long_frames: int = 64
    batch_frames: int = 192
    read_share: float = 0.04
    learning_rate: float = 2e-3
    warmup: int = 100
    vocab_size: int = 512


class Sequences(IterableDataset[Batch]):
    """Endless batches of the generated world; worker ``w`` of ``n`` renders every n-th."""

    def __init__(self, recipe: Recipe, layout: StreamLayout, start: int = 0) -> None:
        self._recipe = recipe
        self._layout = layout
        self._start = start

    def __iter__(self) -> Iterator[Batch]:
        worker = torch.utils.data.get_worker_info()
        number, of = (worker.id, worker.num_workers) if worker else (0, 1)
        for step in range(self._start + number, self._recipe.steps, of):
            yield self.batch(step)

    def batch(self, step: int) -> Batch:
        """The batch of one step, the same whoever asks."""
        r = self._recipe
        rng = np.random.default_rng([r.seed, step])
        config = tiny_config(len(self._layout.tokenizer))
        seeds = (int(s) for s in rng.integers(2**31, 2**62, 64))
        if step < r.see_steps:
            count = r.batch_frames // r.see_frames
            shown = [look(next(seeds), r.see_frames) for _ in range(count)]
            return collate(shown, self._layout, config)
        kind = rng.random()
        if kind < r.read_share:
            return collate(
                [read(next(seeds), int(rng.integers(1, 7))) for _ in range(24)],
                self._layout,
                config,
            )
        frames = r.long_frames if kind < r.read_share + 0.1 else int(rng.choice(r.frames))
        ask = bool(rng.random() < 0.4)
        count = max(1, r.batch_frames // frames)
        dialogues = [watch(next(seeds), frames, ask=ask) for _ in range(count)]
        return collate(dialogues, self._layout, config)


def cosine_start(model: VideoLLMMoD) -> None:
    """Start the patch embedding as a cosine transform of luma and colour, low frequencies first.

    A random start has to find out that pictures have colours and edges before it can compare
    them; this one sees both from the first step.
    """
    weight = model.vision_tower.embeddings.patch_embedding.weight
    width, _, side, _ = weight.shape
    line = (torch.arange(side) + 0.5) * torch.pi / side
    waves = sorted(
        ((u, v) for u in range(side) for v in range(side)), key=lambda w: (w[0] + w[1], w)
    )
    luma = torch.tensor([0.299, 0.587, 0.114])
    chroma = torch.tensor([[0.5, -0.42, -0.08], [-0.17, -0.33, 0.5]])
    n_chroma = width // 8
    rows = []
    for planes, count in ((luma[None], width - 2 * n_chroma), (chroma, n_chroma)):
        for u, v in waves[:count]:
            wave = torch.outer(torch.cos(line * u), torch.cos(line * v))
            wave = wave / wave.norm() / side**0.5
            rows += [plane[:, None, None] * wave for plane in planes]
    with torch.no_grad():
        weight.copy_(2.0 * torch.stack(rows)[:width])


def train(recipe: Recipe, output: Path, *, threads: int, workers: int) -> None:
    """Train from scratch and save a checkpoint that ``from_pretrained`` loads.

    Args:
        output: folder for the checkpoint; ``training.jsonl`` beside the weights has the curves.
        threads: threads of the training process.
        workers: processes that render; 0 renders in the training process.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(recipe.seed)
    draft = tiny_config(recipe.vocab_size)
    tokenizer = train_tokenizer(corpus(), draft, recipe.vocab_size)
    config = tiny_config(len(tokenizer))
    layout = StreamLayout.of(tokenizer, config)
    model = VideoLLMMoD(config)
    cosine_start(model)
    model.train()
    perception = Perception(config.text_config.hidden_size)
    parameters = [*model.parameters(), *perception.parameters()]
    optimizer = torch.optim.AdamW(
        parameters, lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.02
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        recipe.learning_rate,
        total_steps=recipe.steps,
        pct_start=recipe.warmup / recipe.steps,
    )
    batches = DataLoader(Sequences(recipe, layout), batch_size=None, num_workers=workers)
    output.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    averages = np.zeros(3)
    with (output / "training.jsonl").open("w") as log:
        log.write(json.dumps(asdict(recipe)) + "\n")
        for step, batch in enumerate(batches):
            with torch.autocast("cpu", torch.bfloat16):
                live, seen, right = losses(model, perception, batch, layout.silence)
            torch.autograd.backward(seen if step < recipe.see_steps else live + 0.5 * seen)
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            schedule.step()
            if len(batch.frames):
                now = np.array([live.item(), seen.item(), right.item()])
                averages = now if step == 0 else 0.95 * averages + 0.05 * now
            if step % 20 == 19:
                names = ("live", "perception", "right")
                row = {"step": step + 1.0, "seconds": round(time.monotonic() - started, 1)}
                row |= dict(zip(names, averages.round(4).tolist(), strict=True))
                log.write(json.dumps(row) + "\n")
                log.flush()
                print(row, flush=True)
            if step % 400 == 399:
                save(model, layout, output)
    save(model, layout, output)


def save(model: VideoLLMMoD, layout: StreamLayout, output: Path) -> None:
    """Write weights as bfloat16, config and tokenizer to ``output``."""
    weights: dict[str, Tensor] = {
        name: tensor.to(torch.bfloat16) for name, tensor in model.state_dict().items()
    }
    model.save_pretrained(output, state_dict=weights)
    layout.tokenizer.save_pretrained(output)


def main() -> None:
    """Command line of the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder for the checkpoint")
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--see-steps", type=int, default=Recipe.see_steps)
    parser.add_argument("--learning-rate", type=float, default=Recipe.learning_rate)
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1, help="rendering processes")
    args = parser.parse_args()
    recipe = Recipe(
        seed=args.seed,
        steps=args.steps,
        see_steps=args.see_steps,
        learning_rate=args.learning_rate,
    )
    train(recipe, args.output, threads=args.threads, workers=args.workers)


if __name__ == "__main__":
    main()
