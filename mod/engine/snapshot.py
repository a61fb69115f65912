"""A session as bytes: everything that is committed, to go on elsewhere token for token."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, astuple
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from mod.decoder import RoutedDecoder
from mod.engine.blocks import Block
from mod.engine.cache import LayerClass, rows_of
from mod.engine.log import StreamLog
from mod.engine.policy import POLICIES, Past, Retrieve, policy_name
from mod.engine.state import SessionState, Turn, half_of
from mod.places import Cursor

#: Version of the layout of the bytes.
VERSION = 4


class SnapshotError(ValueError):
    """The bytes are no snapshot that this model can go on from."""


def pack(session: SessionState, caches: list[Tensor] | None, identity: str) -> bytes:
    """``session`` as bytes; what waits in its inbox is not part of it.

    Args:
        caches: keys and values as ``PagedCache.save`` gives them; None leaves them out, and the
            cache is computed again from the log. A session that let go of something is not what
            its log alone would give, and must be given with its caches.
        identity: of the model; it must be the same where the session goes on.
    """
    meta: dict[str, Any] = {
        "version": VERSION,
        "model": identity,
        "kind": session.kind,
        "fps": session.fps,
        "threshold": session.threshold,
        "max_new_tokens": session.max_new_tokens,
        "lengths": session.lengths,
        "lead": list(session.lead),
        "watching": session.watching,
        "expected": session.expected,
        "asked": session.asked,
        "unasked": session.unasked,
        "cursor": astuple(session.cursor),
        "half": session.half is not None,
        "n_frames": session.n_frames,
        "turn": asdict(session.turn) if session.turn else None,
        "n_caches": None if caches is None else len(caches),
        "policy": policy_name(session.policy),
        "policy_fields": asdict(session.policy),  # type: ignore[call-overload]
        "past": asdict(session.past),
        "blocks": [{"ids": b.ids, "cursor": astuple(b.cursor)} for b in session.blocks],
    }
    tensors = {"log.ids": torch.tensor(session.log.ids, dtype=torch.int64)}
    if session.log.features:
        tensors["log.features"] = torch.stack(session.log.features).cpu().contiguous()
    last = session.log.last
    if last is not None and not (session.log.features and session.log.features[-1] is last):
        tensors["log.last"] = last.cpu().clone()
    if session.last_seen is not None:
        tensors["last_seen"] = session.last_seen.cpu().contiguous()
    for number, tensor in enumerate(caches or []):
        tensors[f"cache.{number}"] = tensor.contiguous()
    for number, block in enumerate(session.blocks):
        for c, (rows, mean) in enumerate(zip(block.rows(), block.means, strict=True)):
            tensors[f"block.{number}.{c}"] = rows.contiguous()
            tensors[f"block.{number}.{c}.mean"] = mean.contiguous()
    return save(tensors, {"longreel": json.dumps(meta)})


def unpack(
    name: str, data: bytes, model: RoutedDecoder, classes: Sequence[LayerClass], identity: str
) -> SessionState:
    """A cold session called ``name`` from what ``pack`` made.

    Args:
        classes: of the model's layers, as its caches lie in memory.
        identity: of the model, as ``pack`` was given it.

    Raises:
        SnapshotError: it is damaged, of another version, of another model, or of one that keeps
            other numbers of a frame's tokens.
    """
    try:
        tensors = load(data)
        size = int.from_bytes(data[:8], "little")
        meta = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["longreel"])
    except (SafetensorError, ValueError, KeyError) as failure:
        raise SnapshotError(f"no snapshot: {failure}") from None
    if meta["version"] != VERSION:
        raise SnapshotError(f"a snapshot of version {meta['version']}, not {VERSION}")
    if meta["model"] != identity:
        raise SnapshotError(f"a snapshot of model {meta['model']!r}, not {identity!r}")
    _check_tokens(meta, tensors, classes)
    features = list(tensors["log.features"].unbind()) if "log.features" in tensors else []
    last_seen = tensors.get("last_seen")
    policy = POLICIES[meta["policy"]](**meta["policy_fields"])
    return SessionState(
        name=name,
        kind=meta["kind"],
        fps=meta["fps"],
        threshold=meta["threshold"],
        max_new_tokens=meta["max_new_tokens"],
        cache=None,
        lengths=meta["lengths"],
        lead=meta["lead"],
        log=StreamLog(
            tensors["log.ids"].tolist(),
            features,
            tensors.get("log.last", features[-1] if features else None),
        ),
        watching=meta["watching"],
        expected=meta["expected"],
        asked=meta["asked"],
        unasked=meta["unasked"],
        places=model.places(meta["fps"]),
        cursor=Cursor(*meta["cursor"]),
        n_frames=meta["n_frames"],
        n_pushed=meta["n_frames"],
        last_seen=last_seen,
        last_pushed=last_seen,
        half=half_of(last_seen, model.config.frames_per_step) if meta["half"] else None,
        inbox=deque(),
        turn=Turn(**meta["turn"]) if meta["turn"] else None,
        saved=None if meta["n_caches"] is None else _held(tensors, "cache"),
        policy=policy,
        past=Past(**meta["past"]),
        blocks=[
            _block(tensors, number, entry, policy.folder if isinstance(policy, Retrieve) else None)
            for number, entry in enumerate(meta["blocks"])
        ],
    )


def _check_tokens(
    meta: dict[str, Any], tensors: dict[str, Tensor], classes: Sequence[LayerClass]
) -> None:
    """Refuse keys and values that are not as many as the model keeps of what they were made of.

    Raises:
        SnapshotError: they are more or fewer, in some layer.
    """
    ids: list[int] = tensors["log.ids"].tolist()
    lengths = {
        layer: rows
        for kind, (_, rows) in zip(classes, _shapes(ids, classes), strict=True)
        for layer in kind.layers
    }
    streams = [] if meta["n_caches"] is None else [("cache", ids)]
    streams += [(f"block.{number}", block["ids"]) for number, block in enumerate(meta["blocks"])]
    fits = meta["lengths"] == [lengths[layer] for layer in sorted(lengths)]
    for name, entries in streams:
        held = [tuple(part.shape[1:3]) for part in _held(tensors, name)]
        fits = fits and held == _shapes(entries, classes)
    if not fits:
        raise SnapshotError("a snapshot of a model that keeps other numbers of a frame's tokens")


def _shapes(ids: Sequence[int], classes: Sequence[LayerClass]) -> list[tuple[int, int]]:
    """Per class, its layers and the rows that entries of a log have in each of them."""
    return [(len(kind.layers), int(rows_of(ids, kind).sum())) for kind in classes]


def _held(tensors: dict[str, Tensor], name: str) -> list[Tensor]:
    """Keys and values per class that ``pack`` called ``name``."""
    held: list[Tensor] = []
    while (part := f"{name}.{len(held)}") in tensors:
        held.append(tensors[part])
    return held


def _block(
    tensors: dict[str, Tensor], number: int, entry: dict[str, Any], folder: str | None
) -> Block:
    """The ``number``-th block that left the session's window."""
    rows = _held(tensors, f"block.{number}")
    means = [tensors[f"block.{number}.{c}.mean"] for c in range(len(rows))]
    return Block(entry["ids"], Cursor(*entry["cursor"]), rows, means, folder)
