"""The simulated job: nothing lost, nothing for free, and the culprit named."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.assumed import LAYOUTS, Costs, Layout, World
from bench.simulation import Result, library, simulate

AS_IT_IS, CHANGED = LAYOUTS["as it is"], LAYOUTS["several drivers"]
COSTS = Costs(
    probe_s=0.02,
    plan_segment_s=2e-4,
    plan_arrow_s=5e-5,
    batch_s=4e-3,
    watch_s=4e-7,
    begin_s=4e-4,
    add_s=8e-4,
    write_s=5e-4,
    scan_s=1e-4,
    actor_start_s=5.0,
    decode_s=0.07,
)
#: One service already up, nodes alike: what remains is the job's own doing.
EVEN = World(
    hours=60.0, node_spread=0.0, content_spread=0.0, straggler_share=0.0, replica_start_s=0.0
)


def run(
    nodes: int = 8,
    layout: Layout = CHANGED,
    world: World = EVEN,
    costs: Costs = COSTS,
    seed: int = 0,
) -> Result:
    return simulate(world, costs, layout, nodes, seed)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=list(LAYOUTS))
@pytest.mark.parametrize("nodes", [1, 7, 120])
def test_every_segment_is_done_once(layout: Layout, nodes: int) -> None:
    """Guards against work that gets lost or done twice between batches, cells and ledgers."""
    world = World(hours=60.0)
    rows = run(nodes, layout, world).rows
    assert len(rows) == sum(map(len, library(world, 0)))
    assert set(rows) == {1}


def test_the_library_has_the_hours_asked_for() -> None:
    """Guards against lost seconds where videos are cut."""
    for seed in (0, 1):
        assert sum(map(sum, library(EVEN, seed))) == pytest.approx(EVEN.hours * 3600)


def test_one_node_is_ideal_but_for_its_start() -> None:
    """Guards against a simulation that loses time nobody can account for."""
    world = replace(EVEN, summary_s=0.0)
    result = run(1, world=world)
    assert 0.95 < result.efficiency <= 1.0
    assert result.bottleneck in ("model", "actors")
    assert result.busy[result.bottleneck] > 0.95


@pytest.mark.slow
def test_no_run_beats_the_ideal() -> None:
    """Guards against counting less work than is done."""
    for nodes in (1, 4, 16):
        for seed in range(3):
            assert run(nodes, world=World(hours=60.0), seed=seed).efficiency <= 1.0


@pytest.mark.slow
def test_a_slow_ledger_is_named() -> None:
    """Guards against a bottleneck that the figures do not show."""
    slow = replace(COSTS, begin_s=100 * COSTS.begin_s, add_s=100 * COSTS.add_s)
    layout = replace(CHANGED, nodes_per_ledger=0)
    good, bad = run(layout=layout), run(layout=layout, costs=slow)
    assert bad.efficiency < 0.7 * good.efficiency
    assert bad.bottleneck == "ledger"
    # More ledgers are the cure.
    assert run(layout=replace(layout, nodes_per_ledger=1), costs=slow).efficiency > bad.efficiency


def test_a_slow_driver_is_named() -> None:
    """Guards against the driver's rounds costing nothing."""
    slow = replace(COSTS, batch_s=200 * COSTS.batch_s)
    bad = run(costs=slow)
    assert bad.bottleneck == "driver"
    assert bad.efficiency < 0.7 * run().efficiency


@pytest.mark.slow
def test_a_slow_store_is_named() -> None:
    """Guards against bytes that travel for nothing."""
    bad = run(world=replace(EVEN, store_bytes_s=1e8))
    assert bad.bottleneck == "store"
    # It cannot hand out more than it has.
    assert bad.total_s > EVEN.hours * 3600 * EVEN.bytes_per_s / 1e8


@pytest.mark.slow
def test_a_straggler_costs_its_tail() -> None:
    """Guards against batches of one slow node that nobody waits for."""
    slow = run(40, world=replace(EVEN, straggler_share=0.1, straggler_speed=0.1))
    assert slow.tail_s > 2 * run(40).tail_s


@pytest.mark.slow
def test_the_same_seed_gives_the_same_job() -> None:
    """Guards against results that nobody can repeat."""
    world = World(hours=60.0)
    first = run(world=world)
    library.cache_clear()
    again = run(world=world)
    assert again == first
    assert run(world=world, seed=1).total_s != first.total_s
