"""How much hardware live streams or hours of video need, reckoned from what ``bench/results`` has.

``python -m bench.capacity --streams 500`` or ``--hours 10000 --within 24``. Every figure names the
file and the key that it comes from; what is assumed is said to be. ``--page FILE`` writes the
answers anew that a page shows.
"""

from __future__ import annotations

import argparse
import math
import re
import shlex
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.assumed import ROW_BYTES
from bench.measured import Bulk, Figure, Live, NotMeasuredError, read_bulk, read_live
from serve.live.keeping import KEEP_FRAMES

#: Length of a segment, as ``longreel summarize`` has it by default.
SEGMENT_S = 30.0


@dataclass(frozen=True)
class Row:
    """One line of an answer.

    Attributes:
        why: how the amount was reckoned.
        sources: of what was measured.
    """

    need: str
    amount: str
    why: str
    sources: tuple[Figure, ...] = ()


def live_rows(measured: Live, bulk: Bulk, streams: int, fps: float, spare: float) -> list[Row]:
    """What ``streams`` of ``fps`` frames a second need.

    Args:
        spare: share of each GPU that is left free.
    """
    frames = streams * fps
    by_frames = frames / (measured.sessions.value * measured.fps.value)
    # Slower streams take as much memory: no more of them than were there.
    gpus = math.ceil(max(by_frames, streams / measured.sessions.value) / (1 - spare))
    held = measured.cache_gib.value
    kept = frames / KEEP_FRAMES
    rows = [
        Row(
            "GPUs",
            f"{gpus} and 1",
            f"{frames:g} frames/s; {measured.sessions.value:g} streams of {measured.fps.value:g} "
            f"({measured.kind}, {measured.history.value:g} frames seen before) kept up on one, 99 "
            f"frames in 100 within {measured.p99_s.value:.2f} s; {spare:.0%} of each left free, "
            "and one GPU for the sessions of one that is lost",
            (measured.sessions, measured.fps, measured.history, measured.p99_s),
        ),
        Row(
            "cache memory",
            f"{streams * held:.0f} GiB",
            f"{held:.2f} GiB a stream",
            (measured.cache_gib,),
        ),
        Row(
            "cores that decode",
            f"{math.ceil(streams / bulk.decoded.value)}",
            f"where streams are 720p video, of which a core decodes {bulk.decoded.value:.1f}",
            (bulk.decoded,),
        ),
        Row(
            "writes to the state store",
            f"{frames:.0f}/s at most",
            "one for each frame, fewer where several arrive during one; as many looks for a fence",
        ),
        Row(
            "snapshots",
            f"{kept:.1f}/s",
            f"one a stream after {KEEP_FRAMES} frames, and a manifest after it",
        ),
    ]
    if measured.window_gib is not None:
        one = measured.window_gib
        rows.append(
            Row(
                "bytes of snapshots",
                f"{kept * one.value:.2f} GiB/s",
                f"where streams remember a window: {one.value:.2f} GiB each, of others little",
                (one,),
            )
        )
    return rows


def bulk_rows(bulk: Bulk, hours: float, fps: float, within: float) -> list[Row]:
    """What ``hours`` of video at ``fps`` frames a second need to be done ``within`` hours."""
    rows = []
    frames = hours * 3600 * fps
    cases = (("quiet videos", bulk.quiet), (f"words at {bulk.speaks.value:.0%}", bulk.speaking))
    for name, rate in cases:
        work = frames / rate.value / 3600
        gpus, used = _nodes(work / within, bulk.efficiency)
        cores = math.ceil(rate.value / fps / bulk.decoded.value)
        rows += [
            Row(
                f"GPUs, {name}",
                f"{gpus}",
                f"{frames:.3g} frames at {rate.value:.0f} a second are {work:.0f} GPU hours; of "
                f"so many GPUs' time {used.value:.0%} is used (simulated)",
                (rate, used),
            ),
            Row(
                "cores beside each",
                f"{cores}",
                f"a core decodes {bulk.decoded.value:.1f} times as fast as 720p plays",
                (bulk.decoded,),
            ),
        ]
    segments = hours * 3600 / SEGMENT_S
    rows.append(
        Row(
            "rows",
            f"{segments * ROW_BYTES / 2**30:.1f} GiB",
            f"{segments:.3g} segments of {SEGMENT_S:g} s; assumed, {ROW_BYTES / 1000:.0f} kB each "
            "with their keyframes",
        )
    )
    return rows


def _nodes(ideal: float, efficiency: Mapping[int, Figure]) -> tuple[int, Figure]:
    """GPUs that do the work of ``ideal`` busy ones, and what share of their time they use.

    Raises:
        NotMeasuredError: it is more than any number that was simulated does.
    """
    for size, used in sorted(efficiency.items()):
        # Between two sizes the larger one's: rather one too many.
        needed = max(1, math.ceil(ideal / used.value))
        if needed <= size:
            return needed, used
    raise NotMeasuredError(
        f"{ideal:.0f} busy GPUs are more than one job gets out of any cluster that was simulated; "
        "split it, or give it more hours"
    )


def lines(rows: Sequence[Row]) -> Iterator[str]:
    """Rows as text: what is needed, and indented why, and where that was measured."""
    width = max(len(row.need) for row in rows)
    for row in rows:
        yield f"{row.need:<{width}}  {row.amount}"
        yield from textwrap.wrap(row.why, 96, initial_indent="    ", subsequent_indent="    ")
        yield from (f"    ({source})" for source in row.sources)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.capacity", description=(__doc__ or "").splitlines()[0]
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--streams", type=_positive(int), help="live streams at once")
    what.add_argument("--hours", type=_positive(float), help="hours of video, as a job")
    what.add_argument("--page", type=Path, help="page whose answers are written anew")
    parser.add_argument("--fps", type=_positive(float), default=2.0, help="frames a second of each")
    parser.add_argument("--within", type=_positive(float), default=24.0, help="hours for the job")
    parser.add_argument(
        "--spare", type=_share, default=0.2, help="share of each GPU left free; 0.2 by default"
    )
    return parser


def _positive(kind: Callable[[str], float]) -> Callable[[str], float]:
    def read(text: str) -> float:
        value = kind(text)
        if not 0 < value < math.inf:
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return value

    return read


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to below 1")
    return value


def answer(arguments: Sequence[str]) -> str:
    """What the command prints when it is given ``arguments``.

    Raises:
        NotMeasuredError: the results do not have it.
    """
    asked = _parser().parse_args(arguments)
    bulk = read_bulk()
    if asked.streams:
        rows = live_rows(read_live(), bulk, asked.streams, asked.fps, asked.spare)
    else:
        rows = bulk_rows(bulk, asked.hours, asked.fps, asked.within)
    return "\n".join((f"{bulk.model}:", *lines(rows)))


_SHOWN = re.compile(r"(?ms)^\$ python -m bench\.capacity (?P<asked>[^\n]+)\n.*?(?=^```)")


def refreshed(page: str) -> str:
    """A page with every answer in it as the command gives it now."""
    return _SHOWN.sub(
        lambda found: (
            f"$ python -m bench.capacity {found['asked']}\n{answer(shlex.split(found['asked']))}\n"
        ),
        page,
    )


def main() -> int:
    """The command."""
    asked = _parser().parse_args()
    try:
        if asked.page:
            asked.page.write_text(refreshed(asked.page.read_text()))
        else:
            print(answer(sys.argv[1:]))
    except NotMeasuredError as failure:
        print(f"bench.capacity: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
