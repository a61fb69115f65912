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


Summarize = Callable[[Sequence[Node]], str]
#: What a text model is given at once, in characters: a few thousand tokens.
MOST_TEXT = 12_000


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
            joined.append(Node(group[0].start_s, group[-1].end_s, summarize(group), group))
        level = joined
    return level[0] if level else None


def summaries(segments: Sequence[dict[str, Any]]) -> list[Node]:
    """Leaves from what the model itself said of each segment."""
    return [Node(s["start_s"], s["end_s"], s["summary"]) for s in segments if s["summary"]]


def leaves_of(segments: Sequence[dict[str, Any]], most: int = MOST_TEXT) -> list[Node]:
    """Leaves for another model to summarize: narrations, a line each with its time.

    A leaf holds as many lines as fit into ``most`` characters, one at least.
    """
    lines: list[tuple[float, str]] = []
    for segment in segments:
        for i, narration in enumerate(segment["narrations"] or ()):
            time_s, text = narration["time_s"], narration["text"]
            lines.append((time_s if i else segment["start_s"], f"{time_s:.1f} s: {text}"))
    groups: list[list[tuple[float, str]]] = []
    room = 0
    for line in lines:
        if room < len(line[1]) + 1:
            groups.append([])
            room = most
        groups[-1].append(line)
        room -= len(line[1]) + 1
    borders = [group[0][0] for group in groups] + [s["end_s"] for s in segments[-1:]]
    return [
        Node(start_s, end_s, "\n".join(text for _, text in group))
        for group, (start_s, end_s) in zip(groups, pairwise(borders), strict=True)
    ]


def outline(root: Node | None) -> list[dict[str, Any]]:
    """The tree as rows, each after its parent: where every sentence of a summary comes from."""
    rows: list[dict[str, Any]] = []

    def add(node: Node, parent: int | None) -> None:
        number = len(rows)
        span = {"start_s": node.start_s, "end_s": node.end_s}
        rows.append({"parent": parent, **span, "text": node.text})
        for child in node.children:
            add(child, number)

    if root:
        add(root, None)
    return rows


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
