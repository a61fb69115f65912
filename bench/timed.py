"""Seconds and bytes of a job's stages, from inside its processes, without a line in the job.

A copy of this file as ``sitecustomize.py`` on ``PYTHONPATH``, with ``LONGREEL_BENCH_TIMES`` naming
a folder, wraps the functions of ``POINTS`` in every Python process as their modules are imported.
Totals lie in a mapped file a process, so that they outlive a process that is killed. It needs the
standard library alone.
"""

from __future__ import annotations

import functools
import importlib.util
import mmap
import os
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from inspect import isgeneratorfunction
from pathlib import Path
from types import ModuleType
from typing import Any

#: Folder of the files; without it nothing is wrapped.
VARIABLE = "LONGREEL_BENCH_TIMES"

Call = tuple[tuple[Any, ...], Any]


@dataclass(frozen=True)
class Point:
    """A function that is a stage.

    Attributes:
        name: in its module, ``Class.method`` for a method.
        stage: under which its calls are summed; or what tells it from a call's arguments.
        size: bytes that a call moved, from its arguments and result.
    """

    module: str
    name: str
    stage: str | Callable[[tuple[Any, ...]], str]
    size: Callable[[Call], int] | None = None


FRAMES, WORDS = "language model, frames", "language model, words"


def _items(arguments: tuple[Any, ...]) -> str:
    return FRAMES if any(item.frames for item in arguments[1]) else WORDS


POINTS = (
    Point("ray", "init", "start of Ray"),
    Point("pipelines.plan", "plan_all", "plan"),
    Point("pipelines.plan", "plan_video", "probe"),
    Point("serve.app", "deploy", "start of the model service"),
    Point("pipelines.run", "Run.narrate", "narrate"),
    Point("pipelines.run", "Run.reduce", "reduce"),
    Point("pipelines.cluster", "_stay_disconnected", "disconnect"),
    Point("av", "open", "open and index"),
    Point("actors.ranged", "RangedReader._counted_fetch", "read", lambda call: len(call[1])),
    Point("actors.media", "packets", "demux"),
    Point("actors.sampler", "Run._decode", "decode"),
    Point("actors.sampler", "Run._drain", "decode"),
    Point("actors.pictures", "PictureMaker.model_input", "scale"),
    Point("actors.pictures", "PictureMaker.thumbnail", "scale thumbnails"),
    Point("actors.pictures", "jpeg", "encode thumbnails"),
    Point("actors.decode", "decode_segment", "sample, the rest"),
    Point(
        "pipelines.worker",
        "SegmentWorker._narrate",
        "hand frames over",
        lambda call: int(call[0][1].frames.nbytes),
    ),
    Point("pipelines.worker", "segment_row", "make rows"),
    Point("pipelines.worker", "hand_over", "hand rows over"),
    Point("pipelines.asking", "answer", "wait for the model"),
    Point("serve.replica", "Replica.__init__", "load the model"),
    Point("mod.engine.runner", "Runner.encode", "vision encoder"),
    Point("mod.engine.runner", "Runner.run", _items),
    Point("mod.engine.engine", "Engine.step", "engine, the rest"),
    Point("actors.rowfiles", "write_rows", "write Parquet"),
    Point("actors.objects", "write_bytes", "write", lambda call: len(call[0][1])),
    Point("pipelines.videos", "VideoReducer.__call__", "reduce videos"),
)
STAGES = (
    *dict.fromkeys(point.stage for point in POINTS if isinstance(point.stage, str)),
    FRAMES,
    WORDS,
)

#: Calls, seconds and processor seconds without those of stages inside, bytes, and when the first
#: call began and the last one ended (seconds since 1970).
_SLOT = struct.Struct("=6d")
_NOTHING = object()


@dataclass(frozen=True)
class Total:
    """One stage over some processes; see ``_SLOT``."""

    calls: int
    wall_s: float
    cpu_s: float
    n_bytes: int
    first: float
    last: float


class Times:
    """The totals of this process, in a file of the folder that is there from the first call on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._local = threading.local()
        self._places = {stage: _SLOT.size * i for i, stage in enumerate(STAGES)}
        self._slots: mmap.mmap | None = None

    def timed(
        self,
        point: Point,
        call: Callable[..., Any],
        arguments: tuple[Any, ...],
        named: dict[str, Any],
    ) -> Any:
        """Call, and add to the stage."""
        inner = self._inner()
        began, wall, cpu = time.time(), time.perf_counter(), time.thread_time()
        inner.append([0.0, 0.0])
        moved = 0
        try:
            result = call(*arguments, **named)
            if point.size:
                moved = point.size((arguments, result))
            return result
        finally:
            spent = time.perf_counter() - wall, time.thread_time() - cpu
            inside = inner.pop()
            for outer in inner[-1:]:
                outer[0] += spent[0]
                outer[1] += spent[1]
            stage = point.stage if isinstance(point.stage, str) else point.stage(arguments)
            self._add(stage, spent[0] - inside[0], spent[1] - inside[1], moved, began)

    def _inner(self) -> list[list[float]]:
        """For each stage that this thread is in, what the stages inside it took so far."""
        inner: list[list[float]] | None = getattr(self._local, "inner", None)
        if inner is None:
            inner = self._local.inner = []
        return inner

    def _add(self, stage: str, wall_s: float, cpu_s: float, moved: int, began: float) -> None:
        with self._lock:
            if self._slots is None:
                self._slots = self._mapped()
            at = self._places[stage]
            calls, wall, cpu, n_bytes, first, _ = _SLOT.unpack_from(self._slots, at)
            now = calls + 1, wall + wall_s, cpu + cpu_s, n_bytes + moved
            _SLOT.pack_into(self._slots, at, *now, first or began, time.time())

    def _mapped(self) -> mmap.mmap:
        path = self._folder / str(os.getpid())
        path.write_bytes(bytes(_SLOT.size * len(STAGES)))
        with path.open("r+b") as file:
            return mmap.mmap(file.fileno(), 0)


def read_totals(folder: Path) -> dict[str, Total]:
    """The totals of all processes, by stage; stages that no process came to are left out."""
    found: dict[str, list[tuple[float, ...]]] = {}
    for path in folder.iterdir():
        for stage, slot in zip(STAGES, _SLOT.iter_unpack(path.read_bytes()), strict=True):
            if slot[0]:
                found.setdefault(stage, []).append(slot)
    return {
        stage: Total(
            calls=round(sum(slot[0] for slot in slots)),
            wall_s=sum(slot[1] for slot in slots),
            cpu_s=sum(slot[2] for slot in slots),
            n_bytes=round(sum(slot[3] for slot in slots)),
            first=min(slot[4] for slot in slots),
            last=max(slot[5] for slot in slots),
        )
        for stage, slots in found.items()
    }


def wrap(point: Point, module: ModuleType, times: Times) -> None:
    """Put a timed function in the place of the point's.

    Raises:
        AttributeError: there is no such function.
    """
    owner, _, name = point.name.rpartition(".")
    where: Any = getattr(module, owner) if owner else module
    function = getattr(where, name)
    make = _timed_generator if isgeneratorfunction(function) else _timed_function
    setattr(where, name, functools.wraps(function)(make(point, function, times)))


def _timed_function(point: Point, function: Callable[..., Any], times: Times) -> Callable[..., Any]:
    def timed(*arguments: Any, **named: Any) -> Any:
        return times.timed(point, function, arguments, named)

    return timed


def _timed_generator(
    point: Point, function: Callable[..., Any], times: Times
) -> Callable[..., Any]:
    def timed(*arguments: Any, **named: Any) -> Iterator[Any]:
        made = function(*arguments, **named)
        while (found := times.timed(point, next, (made, _NOTHING), {})) is not _NOTHING:
            yield found

    return timed


class _AsImported(MetaPathFinder):
    """Wraps a module's points when it is imported."""

    def __init__(self, points: Sequence[Point], times: Times) -> None:
        self._points: dict[str, list[Point]] = {}
        for point in points:
            self._points.setdefault(point.module, []).append(point)
        self._times = times

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        points = self._points.pop(fullname, None)
        spec = importlib.util.find_spec(fullname) if points else None
        if spec is None or spec.loader is None or points is None:
            return None
        loader: Any = spec.loader
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            for point in points:
                # Another version of the job may lack one.
                owner, _, name = point.name.rpartition(".")
                if hasattr(getattr(module, owner, None) if owner else module, name):
                    wrap(point, module, self._times)

        loader.exec_module = exec_module
        return spec


if _folder := os.environ.get(VARIABLE):
    sys.meta_path.insert(0, _AsImported(POINTS, Times(Path(_folder))))
