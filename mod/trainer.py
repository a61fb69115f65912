"""One training run as a state machine: step, save, restore. No files, no Ray."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from mod.batches import Batch
from mod.decoder import RoutedDecoder
from mod.lora import add_lora, merged
from mod.objective import Objective
from mod.recipe import TrainRecipe

#: What of a model's or its heads' weights belongs to the tower, by parts of their names.
_EYES = ("vision_tower.", "vision_model.", "visual.", "perception.")
_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True, strict=False)


class Trainer:
    """Trains a model by a recipe, in two stages: the tower's eyes, then everything.

    Args:
        wrap: puts the objective on its device, replicated or sharded over workers (DDP, FSDP2).
    """

    def __init__(
        self,
        recipe: TrainRecipe,
        model: RoutedDecoder,
        silence: int | None,
        *,
        device: torch.device | None = None,
        wrap: Callable[[nn.Module, torch.device], nn.Module] = nn.Module.to,
    ) -> None:
        self.recipe = recipe
        self.step_number = 0
        self._device = device or torch.device("cpu")
        torch.manual_seed(recipe.training.seed)
        if recipe.model.train == "lora":
            add_lora(model, recipe.model.lora_rank, recipe.model.lora_alpha)
        _hold_exactly(model, whole=recipe.training.precision == "float32")
        if recipe.training.gradient_checkpointing:
            model.decoder.activation_checkpointing_enable()
        objective = Objective(
            model.train(),
            silence,
            sigma=recipe.training.silence_weight,
            perception_weight=recipe.training.perception_weight,
        )
        self._objective = wrap(objective, self._device)
        self._stage = self._begin_stage()

    @property
    def _seeing(self) -> bool:
        return self.step_number < self.recipe.training.see_steps

    def step(self, batch: Batch) -> dict[str, float]:
        """Learn from ``batch``.

        Returns:
            What :class:`Objective` measured, and the gradient's ``norm`` before clipping.
        """
        training = self.recipe.training
        if training.see_steps and self.step_number == training.see_steps:
            self._stage = self._begin_stage()
        half = training.precision == "bfloat16"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=half):
            results = self._objective(batch.to(self._device), see_only=self._seeing)
        norm = self._stage.update(results.pop("loss"))
        self.step_number += 1
        return {name: value.item() for name, value in results.items()} | {"norm": norm}

    def state(self) -> dict[str, Any]:
        """All that a restart needs; on every worker a collective call, complete on the first."""
        optimizer = self._stage.optimizer
        return {
            "step": self.step_number,
            "weights": get_model_state_dict(self._objective, options=_WHOLE),
            "optimizer": get_optimizer_state_dict(self._objective, optimizer, options=_WHOLE),
            "schedule": self._stage.schedule.state_dict(),
        }

    def plain_weights(self) -> dict[str, Tensor]:
        """The model's own weights, updates merged; collective like ``state``."""
        weights = get_model_state_dict(self._objective, options=_WHOLE)
        own = {
            name.removeprefix("model."): tensor
            for name, tensor in weights.items()
            if name.startswith("model.") and isinstance(tensor, Tensor)
        }
        return merged(own, self.recipe.model.lora_alpha / self.recipe.model.lora_rank)

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where ``state`` was taken."""
        self.step_number = state["step"]
        set_model_state_dict(self._objective, state["weights"], options=_WHOLE)
        # At the first step of a stage its optimizer is new: the old one has other parameters.
        at_border = self.step_number == self.recipe.training.see_steps
        self._stage = self._begin_stage()
        if at_border and self.step_number:
            return
        set_optimizer_state_dict(
            self._objective, self._stage.optimizer, state["optimizer"], options=_WHOLE
        )
        self._stage.schedule.load_state_dict(state["schedule"])

    def _begin_stage(self) -> _Stage:
        training = self.recipe.training
        eyes: list[nn.Parameter] = []
        rest: list[nn.Parameter] = []
        for name, parameter in self._objective.named_parameters():
            if parameter.requires_grad:
                sees = any(part in name for part in _EYES)
                (eyes if sees else rest).append(parameter)
        if self._seeing:
            groups = [{"params": eyes, "lr": training.see_rate}]
            return _Stage.over(training.see_steps, training.warmup, groups, training.weight_decay)
        groups = [
            {"params": rest, "lr": training.learning_rate},
            {"params": eyes, "lr": training.learning_rate * training.tower_share},
        ]
        steps = training.steps - training.see_steps
        groups = [group for group in groups if group["params"]]
        return _Stage.over(steps, training.warmup, groups, training.weight_decay)


def _hold_exactly(model: nn.Module, *, whole: bool) -> None:
    """Have weights that learn in float32, whatever their checkpoint's type.

    A step changes a weight by less than bfloat16 can tell from it.

    Args:
        whole: the others too; else they stay as they are, and autocast brings both together.
    """
    for parameter in model.parameters():
        if whole or parameter.requires_grad:
            parameter.data = parameter.data.float()


@dataclass
class _Stage:
    """An optimizer with its one-cycle schedule over part of the run."""

    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    parameters: list[nn.Parameter]

    @classmethod
    def over(cls, steps: int, warmup: int, groups: list[dict[str, Any]], decay: float) -> _Stage:
        optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=decay)
        # The schedule cannot be shorter than its rise and its fall.
        total = max(4, steps + 1)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            [group["lr"] for group in groups],
            total_steps=total,
            pct_start=min(0.5, max(1.5, warmup) / total),
        )
        return cls(optimizer, schedule, [p for group in groups for p in group["params"]])

    def update(self, loss: Tensor) -> float:
        """Descend once along ``loss``; returns the gradient's norm."""
        torch.autograd.backward(loss)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.schedule.step()
        return float(norm)
