"""Curves of a run that is taken up again.

Guards against steps told twice, clocks that restart, and events that are not there yet.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event

from pipelines.curves import CURVE, Curves


def _events(file: Path) -> list[tuple[int, str, float]]:
    """Step, name and value of each scalar in a file of TensorBoard's."""
    data, at, found = file.read_bytes(), 0, []
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        event = Event.FromString(data[at + 12 : at + 12 + length])
        found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
        at += 12 + length + 4
    return found


def _lines(output: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (output / CURVE).read_text().splitlines()]


def test_a_run_goes_on_where_its_state_was_saved(tmp_path: Path) -> None:
    curves = Curves(str(tmp_path), 0)
    for step in range(1, 61):
        curves.add(step, {"live": 3.0})
    curves.publish()
    # A line from before, as if the first forty steps had taken long.
    lines = [{**line, "seconds": 1000.0 + line["step"]} for line in _lines(tmp_path)]
    (tmp_path / CURVE).write_text("\n".join(map(json.dumps, lines)) + "\n")
    assert [line["step"] for line in lines] == [20, 40, 60]

    again = Curves(str(tmp_path), 40)
    for step in range(41, 81):
        again.add(step, {"live": 2.0})
    again.publish()
    assert [line["step"] for line in _lines(tmp_path)] == [20, 40, 60, 80]
    assert [line["live"] for line in _lines(tmp_path)] == [3.0, 3.0, 2.0, 2.0]
    assert _lines(tmp_path)[2]["seconds"] >= 1040.0

    first, second = sorted((tmp_path / "curves").iterdir(), key=lambda file: file.suffix)
    assert (first.suffix, second.suffix) == (".0", ".40")
    assert [e for e in _events(first) if e[1] == "live"] == [(s, "live", 3.0) for s in (20, 40, 60)]
    assert [e for e in _events(second) if e[1] == "live"] == [(s, "live", 2.0) for s in (60, 80)]
