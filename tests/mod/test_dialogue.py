"""Augmentation spoils narrations without ever teaching what it spoiled.

Guards against a model that learns to say what was spoiled on purpose.
"""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mod.dialogue import Dialogue, augment

TEXTS = st.lists(st.sampled_from([None, None, "one", "two", "three"]), min_size=1, max_size=30)


def _dialogue(texts: list[str | None]) -> Dialogue:
    return Dialogue(np.zeros((len(texts), 2, 2, 3), np.uint8), texts)


@given(TEXTS, st.integers(0, 999))
def test_what_differs_from_the_truth_is_never_learned(texts: list[str | None], seed: int) -> None:
    spoiled = augment(_dialogue(texts), np.random.default_rng(seed), 1.0)
    assert len(spoiled.texts) == len(texts)
    for i, (was, now) in enumerate(zip(texts, spoiled.texts, strict=True)):
        if was != now:
            assert i in spoiled.doubtful
            assert {max(0, i - 1), min(len(texts) - 1, i + 1)} <= spoiled.doubtful
    spoken = [t for t in texts if t]
    assert {t for t in spoiled.texts if t} <= set(spoken)
    assert sum(t is not None for t in spoiled.texts) == len(spoken)


@given(TEXTS)
def test_no_share_spoils_nothing(texts: list[str | None]) -> None:
    dialogue = _dialogue(texts)
    spoiled = augment(dialogue, np.random.default_rng(0), 0.0)
    assert (spoiled.texts, spoiled.doubtful) == (texts, frozenset())


def test_both_ways_of_spoiling_happen() -> None:
    texts = [None, None, "one", None, None, "two", None, None]
    moved = replaced = 0
    for seed in range(50):
        now = augment(_dialogue(texts), np.random.default_rng(seed), 0.5).texts
        moved += [i for i, t in enumerate(now) if t] != [2, 5]
        replaced += [t for t in now if t] in (["two", "two"], ["one", "one"])
    assert moved > 5
    assert replaced > 5
