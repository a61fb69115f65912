"""The curves of a training run, in its output as lines of JSON and as TensorBoard events."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

from actors.objects import exists, join_uri, read_bytes, write_bytes
from mod.train import Curve

#: The lines of JSON.
CURVE = "training.jsonl"


class Curves:
    """A run's curves, published with each saved state.

    Args:
        output: of the run; it goes on with the lines there.
        step: that the run goes on after, 0 at its start.
    """

    def __init__(self, output: str, step: int) -> None:
        # Not its SummaryWriter: that writes in a thread, and cannot say when it has.
        from tensorboardX.event_file_writer import EventsWriter

        self._output = output
        self._folder = tempfile.TemporaryDirectory()
        self._events = EventsWriter(f"{self._folder.name}/events", f".{step}")
        uri = join_uri(output, CURVE)
        earlier = read_bytes(uri).decode().splitlines() if exists(uri) else []
        # What was written after the state that the run goes on from is written again.
        self._lines = [line for line in earlier if line and json.loads(line)["step"] <= step]
        self._curve = Curve(json.loads(self._lines[-1])["seconds"] if self._lines else 0.0)

    def add(self, step: int, results: dict[str, float]) -> dict[str, Any] | None:
        """Take in one step; returns the line when one is due."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        line = self._curve.add(step, results)
        if line is None:
            return None
        self._lines.append(json.dumps(line))
        for name, value in line.items():
            if name != "step":
                told = Event(step=step, wall_time=time.time(), summary=scalar(name, value))
                self._events.write_event(told)
        return line

    def publish(self) -> None:
        """Bring the output up to date."""
        self._events.flush()
        write_bytes(join_uri(self._output, CURVE), ("\n".join(self._lines) + "\n").encode())
        for file in Path(self._folder.name).iterdir():
            write_bytes(join_uri(self._output, "curves", file.name), file.read_bytes())
