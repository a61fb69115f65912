"""What a training run shows: a line now and then, and its metrics at the end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

#: Seconds between lines of the curve.
_LINE_EVERY_S = 10.0


class TrainingView:
    """Shows what a run tells.

    Args:
        echo: takes one line.
    """

    def __init__(self, echo: Callable[[str], None]) -> None:
        self._echo = echo
        self._said_at = 0.0

    def show(self, kind: str, values: dict[str, Any]) -> None:
        """Show one thing told: ``remark`` with a text, or ``curve`` with its numbers."""
        if kind == "remark":
            self._echo(str(values["text"]))
        elif kind == "curve" and time.monotonic() - self._said_at >= _LINE_EVERY_S:
            self._said_at = time.monotonic()
            self._echo(curve_line(values))

    def metrics(self, metrics: dict[str, Any]) -> None:
        """Show the metrics of a finished run."""
        for group, values in metrics.items():
            if isinstance(values, dict):
                known = {name: value for name, value in values.items() if value is not None}
                figures = ", ".join(f"{name} {value:.3g}" for name, value in known.items())
                self._echo(f"{group.replace('_', '-')}: {figures}")


def curve_line(values: dict[str, Any]) -> str:
    """One line of a curve in words: ``step 40 of 3200, 61 s: live 2.1, right 0.54``."""
    others = {k: v for k, v in values.items() if k not in ("step", "steps", "seconds")}
    figures = ", ".join(f"{name} {value:.3g}" for name, value in others.items())
    return f"step {values['step']} of {values['steps']}, {values['seconds']:.0f} s: {figures}"
