"""What an engine has done, as plain numbers that anybody may read at any time."""

from __future__ import annotations

from dataclasses import dataclass, field

from mod.engine.scheduler import Kind


@dataclass
class Figures:
    """Numbers since the engine was made; the engine's thread alone writes them.

    Attributes:
        tokens: that steps ran, by kind of work.
        parts: sessions that took part in steps, once for each step.
        frames_run: frames run in chunks, as if the model stayed silent before each.
        frames_kept: of those, up to the first at which it spoke.
        words: tokens that were said.
        failures: inputs and turns that failed.
        evictions: caches that were moved out of pages.
    """

    tokens: dict[Kind, int] = field(default_factory=lambda: dict.fromkeys(Kind, 0))
    parts: int = 0
    frames_run: int = 0
    frames_kept: int = 0
    words: int = 0
    failures: int = 0
    evictions: int = 0
