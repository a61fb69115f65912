"""From a video's segments to its row: status, summary, chapters, keyframes, summed costs."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from longreel.schemas import FAILED, OK, PARTIAL
from pipelines.keyframes import PER_VIDEO, choose

#: Summaries that are reduced to one at a time, and about how many chapters a video gets.
FAN_IN = 6


@dataclass(frozen=True)
class Node:
    """A summary and the time it speaks of; its children say where each part comes from."""

    start_s: float
    end_s: float
    text: str
    children: tuple[Node, ...] = field(default=())


Summarize = Callable[[list[str]], str]


def build_tree(leaves: Sequence[Node], summarize: Summarize) -> Node | None:
    """Reduce consecutive summaries to one, level by level.

    Each level joins at most ``FAN_IN`` neighbours, as evenly as it goes; a single leaf is its
    own root. None when there are no leaves. Source: LLoVi (caption, then summarize captions).
    """
    level = list(leaves)
    while len(level) > 1:
        n_groups = -(-len(level) // FAN_IN)
        bounds = [round(i * len(level) / n_groups) for i in range(n_groups + 1)]
        joined = []
        for low, high in pairwise(bounds):
            group = tuple(level[low:high])
            text = summarize([node.text for node in group])
            joined.append(Node(group[0].start_s, group[-1].end_s, text, group))
        level = joined
    return level[0] if level else None


def chapters(root: Node | None) -> list[dict[str, Any]]:
    """The root's parts as chapters; a video of one part is one chapter."""
    if root is None:
        return []
    return [
        {"start_s": n.start_s, "end_s": n.end_s, "title": _title(n), "summary": n.text}
        for n in (root.children or (root,))
    ]


def _title(node: Node) -> str:
    first = re.split(r"[;,.]", node.text)[0].strip()
    return first if len(first) <= 72 else first[:71].rsplit(" ", 1)[0] + "…"


def status_of(segments: Sequence[dict[str, Any]], n_planned: int) -> tuple[str, str | None]:
    """A video's status and error from its segments' rows, in order of time.

    Failed when nothing was decoded, partial when anything is missing, else ok; the error is the
    earliest one.
    """
    errors = [s["error"] for s in segments if s["error"]]
    if len(segments) < n_planned:
        errors.append(f"Missing: {n_planned - len(segments)} of {n_planned} segments have no row")
    if all(s["status"] == FAILED for s in segments):
        return FAILED, errors[0] if errors else "Empty: the video has no frames"
    if any(s["status"] != OK for s in segments) or len(segments) < n_planned:
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        return PARTIAL, errors[0] + more
    return OK, None


def video_keyframes(segments: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The best of the segments' keyframes, spread over the video, in order of time."""
    frames = [k for s in segments for k in s["keyframes"] or []]
    if not frames:
        return []
    times = [k["time_s"] for k in frames]
    gap = max(1.0, (times[-1] - times[0]) / (2 * PER_VIDEO))
    return [frames[i] for i in choose(times, [k["score"] for k in frames], PER_VIDEO, gap)]


def summed(segments: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The cost columns of a video."""
    whole = ("vision_tokens", "processed_token_layers", "kv_bytes")
    sums: dict[str, Any] = {name: sum(s[name] or 0 for s in segments) for name in whole}
    for name in ("decode_s", "model_s"):
        sums[name] = float(sum(s[name] or 0.0 for s in segments))
    return sums
