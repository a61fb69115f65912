"""One pass of a job: rows in batches through a pool of actors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy, Dataset

from pipelines.cluster import CORES

Row = dict[str, Any]
_Item = TypeVar("_Item")


def through(
    worker: type,
    arguments: tuple[Any, ...],
    batches: Sequence[Sequence[Row]],
    schema: pa.Schema,
    workers: int,
) -> Dataset:
    """Each batch of rows through one of up to ``workers`` actors of a kind, one CPU each."""
    most = max(1, min(workers, len(batches)))
    # Ray Data would begin with one and start the next when that one is at work, seconds later.
    at_once = max(1, min(most, int(ray.cluster_resources().get("CPU", 1))))
    tables = [pa.Table.from_pylist(list(batch), schema=schema) for batch in batches]
    return ray.data.from_arrow(tables).map_batches(
        worker,
        fn_constructor_args=arguments,
        batch_size=None,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(min_size=1, max_size=most, initial_size=at_once),
        num_cpus=1,
    )


def in_batches(rows: Sequence[_Item], workers: int, largest: int) -> list[Sequence[_Item]]:
    """Large enough that each worker can run ahead, smaller as less is left, so that all end alike.

    Source: guided self-scheduling (Polychronopoulos and Kuck, 1987).
    """
    batches, first = [], 0
    while first < len(rows):
        size = max(1, min(largest, (len(rows) - first) // (4 * workers)))
        batches.append(rows[first : first + size])
        first += size
    return batches


def pool_size(wanted: int, replicas: int) -> int:
    """How many decoding actors a job gets.

    Args:
        wanted: what the user asked for; 0 takes one a core of a cluster that longreel started,
            on others all CPUs but those of the model's replicas and one for Ray's own helpers.
    """
    if wanted:
        return wanted
    there = ray.cluster_resources()
    return max(1, int(there.get(CORES, there.get("CPU", 1) - replicas - 1)))
