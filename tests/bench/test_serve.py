"""The pure parts of the serving bench: where the knee is, which frames are late, what differs."""

from __future__ import annotations

import pytest

from bench.serve_body import packed, unpacked
from bench.serve_chaos import Stream, same
from bench.serve_knee import knee
from bench.serve_load import Lags, Spec, mean_live, quantile
from bench.serve_overhead import over


@pytest.mark.parametrize("most", [1, 2, 3, 5, 8, 13, 40])
def test_the_knee_is_found_from_either_side(most: int) -> None:
    """Guards the search: it names a load that passed, and with probes enough the largest."""
    tried: list[int] = []

    def passes(n: int) -> bool:
        tried.append(n)
        return n <= most

    for first in (1, 4, 20, 60):
        tried.clear()
        found = knee(passes, first, probes=12)
        assert found in tried
        assert most / 1.16 <= found <= most
        assert len(set(tried)) == len(tried)


def test_only_what_passed_is_a_knee() -> None:
    """Guards against a guess, or a load that nothing was tried above, being reported."""
    assert knee(lambda n: n <= 11, 8, probes=0) == 8
    assert knee(lambda n: n <= 11, 8, probes=1) == 11
    assert knee(lambda n: False, 8, probes=9) == 0
    assert knee(lambda n: True, 8, probes=9) is None


def test_a_share_of_frames_may_be_late() -> None:
    """Guards p99: with 100 frames one may be late, two may not."""
    assert quantile([0.1] * 99 + [9.0], 0.99) == 0.1
    assert quantile([0.1] * 98 + [9.0] * 2, 0.99) == 9.0
    assert quantile([], 0.99) == 0.0


def test_frames_that_are_never_seen_are_late() -> None:
    """Guards against a service that answers nothing looking fast."""
    lags = Lags()
    lags.add(1.0)
    lags.seen[lags.add(2.0)] = 2.25
    assert lags.values(now=11.0) == [10.0, 0.25]


def test_as_many_sessions_are_live_as_was_asked_for() -> None:
    """Guards the load: both sides get the same arrivals, which come to the number named."""
    specs = [Spec(side, "", 20, 30.0, 15.0, seed=4) for side in ("ours", "resend")]
    assert specs[0].starts == specs[1].starts
    assert specs[0].starts != Spec("ours", "", 20, 30.0, 15.0, seed=5).starts
    for n in (1, 2, 20):
        starts = Spec("ours", "", n, 30.0, 15.0).starts
        assert mean_live(starts, 30.0, 30.0, 45.0) == pytest.approx(n, rel=0.05)
    assert mean_live([0.0, 10.0, 44.0], 30.0, 30.0, 40.0) == pytest.approx(1.0)


def test_pictures_come_out_of_a_body_as_they_went_in() -> None:
    """Guards the re-sent history."""
    assert unpacked(packed([b"one", b"", b"three"])) == [b"one", b"", b"three"]


def test_what_a_session_told_is_compared_but_for_its_id() -> None:
    """Guards the count of changed transcripts: a word, an event or a frame more is a change."""
    seen = ("frame.seen", {"frame": 0, "time_s": 0.0, "p_silence": 0.5, "speaks": True})
    done = ("response.done", {"response": "resp-a-1", "text": "Two.", "output_tokens": 2})
    other = ("response.done", {**done[1], "response": "resp-b-1"})
    assert same([seen, done], [("frame.seen", {**seen[1], "p_silence": 0.50001}), other])
    assert not same([seen, done], [seen])
    assert not same([seen, done], [seen, ("response.done", {**done[1], "text": "One."})])
    assert not same([seen], [("frame.seen", {**seen[1], "p_silence": 0.6})])
    assert not same([seen], [("frame.seen", {**seen[1], "speaks": False})])


def test_acknowledged_inputs_without_an_event_are_lost() -> None:
    """Guards the count of lost items: frames do not make up for questions."""
    stream = Stream("s", frames=2, questions=1)
    stream.events = [("frame.seen", {})] * 3
    assert stream.lost == 1
    stream.events = [("frame.seen", {}), ("response.done", {})]
    assert stream.lost == 1


def test_overhead_leaves_the_engine_out() -> None:
    """Guards the ratio: (ours - engine) / empty POST, block by block."""
    times = {"whole": [5.0, 5.0, 9.0, 9.0], "direct": [1.0] * 4, "noop": [2.0, 2.0, 4.0, 4.0]}
    assert over(times, "whole", "direct", "noop", 2) == [2.0, 2.0]
