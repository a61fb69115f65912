"""What a session's events say about given frames, or about one question."""

from __future__ import annotations

from collections.abc import Iterable

from serve.live.items import SessionEvent
from serve.routes.schemas import OutcomeShown


class FrameOutcomes:
    """Gathers the outcome of each of ``frames`` (their numbers) from events in order."""

    def __init__(self, frames: Iterable[int]) -> None:
        self._missing = set(frames)
        self._found: dict[int, OutcomeShown] = {}

    @property
    def complete(self) -> bool:
        """Whether every frame was seen, and all that is said at it was said."""
        return not self._missing

    @property
    def outcomes(self) -> list[OutcomeShown]:
        """In the order of frames."""
        return [self._found[frame] for frame in sorted(self._found)]

    def take(self, event: SessionEvent) -> None:
        """Note what ``event`` says."""
        frame = event.data.get("frame")
        if frame not in self._missing:
            return
        if event.type == "frame.seen":
            self._found[frame] = OutcomeShown(
                frame=frame,
                time_s=event.data["time_s"],
                p_silence=event.data["p_silence"],
                narration=None,
            )
            if not event.data["speaks"]:
                self._missing.discard(frame)
        elif event.type == "narration":
            self._found[frame].narration = event.data["text"]
            self._missing.discard(frame)
        elif event.type == "error":
            failed = OutcomeShown(frame=frame, time_s=None, p_silence=None, narration=None)
            self._found.setdefault(frame, failed)
            self._missing.discard(frame)
