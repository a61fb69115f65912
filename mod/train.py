"""Train a model in this process, without Ray: ``python -m mod.train --output FOLDER``.

Recipes of ``longreel train`` without footage; needs torch and transformers only. Every sequence of
the generated world is rendered from its seed, so that a run can be repeated.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from longreel.errors import UsageError
from mod.adopted import AdoptedModel, save_adopted
from mod.decoder import RoutedDecoder
from mod.modeling import VideoLLMMoD
from mod.recipe import TrainRecipe, read_recipe
from mod.sequences import Batches, GeneratedWorld
from mod.start import start
from mod.trainer import Trainer
from mod.weights import SHARD_SIZE

RECIPE = Path(__file__).parent / "recipes" / "longreel-tiny.toml"


class Curve:
    """Averages of what a step reports, and a line every twentieth step.

    Args:
        before_s: seconds that the run took before it was taken up again.
    """

    def __init__(self, before_s: float = 0.0) -> None:
        self._averages: dict[str, float] = {}
        self._started = time.monotonic() - before_s

    def add(self, step: int, results: dict[str, float]) -> dict[str, float] | None:
        """Take in one step; returns the line when one is due."""
        for name, value in results.items():
            old = self._averages.get(name, value)
            self._averages[name] = 0.95 * old + 0.05 * value
        if step % 20:
            return None
        seconds = round(time.monotonic() - self._started, 1)
        rounded = {name: round(value, 4) for name, value in self._averages.items()}
        return {"step": step, "seconds": seconds} | rounded


def train(recipe: TrainRecipe, output: Path, *, workers: int) -> None:
    """Train by ``recipe`` and save a checkpoint that ``from_pretrained`` loads.

    Args:
        output: folder for the checkpoint; ``training.jsonl`` beside the weights has the curves.
        workers: processes that render; 0 renders in the training process.

    Raises:
        UsageError: the recipe cannot work here.
    """
    if recipe.data.narrations:
        raise UsageError("own footage needs what decodes it: longreel train learns from it")
    torch.set_num_threads(recipe.scale.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model, layout = start(recipe, device)
    trainer = Trainer(recipe, model, layout.silence, device=device)
    world = GeneratedWorld(recipe, model.config.image_size)
    batches = Batches(recipe, world, layout, model.config)
    loader = DataLoader(batches, batch_size=None, num_workers=workers)
    output.mkdir(parents=True, exist_ok=True)
    curve = Curve()
    tokenizer = layout.tokenizer
    with (output / "training.jsonl").open("w") as log:
        log.write(json.dumps(recipe.as_dict()) + "\n")
        for batch in loader:
            line = curve.add(trainer.step_number + 1, trainer.step(batch))
            if line:
                log.write(json.dumps(line) + "\n")
                log.flush()
                print(json.dumps(line), flush=True)
            if trainer.step_number % recipe.training.save_every == 0:
                save(model, trainer.plain_weights(), tokenizer, output)
    save(model, trainer.plain_weights(), tokenizer, output)


def save(
    model: RoutedDecoder,
    weights: dict[str, Tensor],
    tokenizer: PreTrainedTokenizerBase,
    output: Path,
) -> None:
    """Write ``weights`` as bfloat16, config, generation config and tokenizer to ``output``."""
    halves = {name: tensor.to(torch.bfloat16) for name, tensor in weights.items()}
    if isinstance(model, AdoptedModel):
        save_adopted(model, halves, output)
        _readable(output)
        return
    assert isinstance(model, VideoLLMMoD)
    model.save_pretrained(output, state_dict=halves, max_shard_size=SHARD_SIZE)
    config = copy.deepcopy(model.config)
    config.dtype = torch.bfloat16
    config.save_pretrained(output)
    _readable(output)
    tokenizer.save_pretrained(output)


def _readable(output: Path) -> None:
    """Weights are written for the owner alone; whoever may read the folder shall load them."""
    for file in output.glob("*.safetensors"):
        file.chmod(0o644)


def main() -> None:
    """Command line of the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=RECIPE, help="the recipe, a TOML file")
    parser.add_argument("--output", type=Path, required=True, help="folder for the checkpoint")
    parser.add_argument("--workers", type=int, default=1, help="rendering processes")
    args = parser.parse_args()
    try:
        train(read_recipe(args.config), args.output, workers=args.workers)
    except UsageError as failure:
        parser.error(str(failure))


if __name__ == "__main__":
    main()
