"""How large chunks are, by what streams cost that speak now and then.

Guards against a chunk that runs in vain wherever the model speaks, and against one that stays small
where it does not.
"""

from __future__ import annotations

import random

import pytest

from mod.engine.speculation import MIN_CHUNK, Chunks, Speculation

CPU = Chunks.on(gpu=False)


def _cost(steps: int, often: float, chunks: Chunks, fixed: int | None = None) -> float:
    """Of one step, in steps: of a stream whose model speaks at a share ``often`` of them."""
    rng, one = random.Random(1), Speculation()
    speaks = [rng.random() < often for _ in range(steps)]
    spent = at = 0.0
    while at < steps:
        n = fixed or one.chunk
        spent += n + chunks.beside
        part = speaks[int(at) : int(at) + n]
        if True in part:
            seen = part.index(True) + 1
            one.spoke(seen, chunks)
        else:
            seen = len(part)
            one.silent(seen, chunks)
        at += seen
    return spent / steps


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("often", [0.2, 0.1, 0.05, 0.02, 0.01, 0.003, 0.0])
def test_it_costs_little_more_than_the_best_chunk_of_one_size(gpu: bool, often: float) -> None:
    """Guards streams that speak every few frames, and those that hardly ever do."""
    chunks = Chunks.on(gpu=gpu)
    sizes = [2**n for n in range(9) if 2**n <= chunks.most]
    best = min(_cost(5000, often, chunks, fixed=size) for size in sizes)
    assert _cost(5000, often, chunks) < 1.12 * best


def test_while_nothing_is_said_it_doubles_up_to_the_largest() -> None:
    one, seen = Speculation(), []
    for _ in range(6):
        seen.append(one.chunk)
        one.silent(one.chunk, CPU)
    assert seen == [2, 4, 8, 16, 32, 32]


def test_it_grows_again_when_silence_lasts() -> None:
    """Guards a quiet night against the words of the day."""
    one = Speculation()
    for _ in range(20):
        one.spoke(1, CPU)
    assert one.chunk == MIN_CHUNK
    ran = 0
    while one.chunk < CPU.most:
        ran += one.chunk
        one.silent(one.chunk, CPU)
    assert ran < 300


def test_a_long_silence_is_soon_forgotten() -> None:
    """Guards the words of the morning against chunks of the night, which run in vain then."""
    one = Speculation()
    one.silent(57_600, CPU)
    for _ in range(6):
        one.spoke(3, CPU)
    assert one.chunk <= 6


def test_one_narration_says_little_of_the_next() -> None:
    """Guards streams whose model speaks at their first frame and hardly ever again."""
    one = Speculation()
    one.spoke(1, CPU)
    for _ in range(5):
        one.silent(one.chunk, CPU)
    assert one.chunk > 20


@pytest.mark.parametrize("most", [1, 3])
def test_the_bound_holds(most: int) -> None:
    for between in (0.0, 1e9):
        assert Chunks.on(gpu=True, most=most).best(between) <= most
    with pytest.raises(ValueError, match="max_chunk must be at least 1, not 0"):
        Chunks.on(gpu=False, most=0)
