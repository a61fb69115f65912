"""The parts of a job in this process, for tests that need no cluster: calls return at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from longreel.schemas import OK, SEGMENTS

Row = dict[str, Any]


class Direct:
    """An actor's handle, of an object in this process. What its calls return is no reference:
    ``ray.get`` must return what it is given."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def __getattr__(self, name: str) -> Direct:
        return Direct(getattr(self._actor, name))

    def remote(self, *arguments: Any, **named: Any) -> Any:
        return self._actor(*arguments, **named)


class Summarizer:
    """An endpoint that joins what it is given.

    Args:
        when_asked: called before each answer.
    """

    def __init__(self, when_asked: Callable[[], None] = lambda: None) -> None:
        self._when_asked = when_asked

    def summarize(self, nodes: Sequence[Any]) -> str:
        self._when_asked()
        return " ".join(node.text for node in nodes)


def segment(planned: Row, **more: Any) -> Row:
    """The SEGMENTS row of a PLAN row, one narration in it."""
    said = {"time_s": planned["start_s"], "text": f"said in {planned['segment_id']}."}
    names = ("segment_id", "video_id", "uri", "segment_index", "start_s", "end_s")
    return {
        **dict.fromkeys(SEGMENTS.names),
        **{name: planned[name] for name in names},
        "status": OK,
        "n_frames": 8,
        "decode_s": 1.0,
        "model_s": 1.0,
        "narrations": [said],
        "keyframes": [],
        **more,
    }


def plan_of(*videos: str, n_segments: int = 2) -> tuple[list[Row], list[Row]]:
    """PROBE rows and PLAN rows of videos that are called so, with segments of four seconds."""
    probes = [
        {"video_id": name, "uri": name, "n_segments": n_segments, "error": None} for name in videos
    ]
    plan = [
        {
            "segment_id": f"{name}{index}",
            "video_id": name,
            "uri": name,
            "segment_index": index,
            "start_s": 4.0 * index,
            "end_s": 4.0 * index + 4,
        }
        for name in videos
        for index in range(n_segments)
    ]
    return probes, plan
