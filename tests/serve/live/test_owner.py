"""Owners of live sessions on real engines, a real store and the real directory, without Ray.

An owner is lost as a killed process is: nothing of it runs any more, and what it had in memory is
gone; or it is declared lost and goes on as if nothing had happened.

Guards against what was acknowledged and is lost, told twice or told otherwise by the next owner.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.directory import Directory
from actors.statestore import Manifest, StateStore
from serve.engine_loop import ModelError
from serve.live.items import (
    Frame,
    Input,
    Question,
    Receipt,
    Refusal,
    SessionEvent,
    SessionOptions,
)
from serve.live.owner import Owner
from serve.live.past import Past
from serve.live.session import LiveSession
from tests.mod.small import some_frames
from tests.serve.live.owners import make_owner

FRAMES = some_frames(40, seed=1).numpy()
MOST = 5


@dataclass
class Service:
    """Two owners at most, one of which has the session; calls go to whoever that is."""

    folder: Path
    options: SessionOptions
    told: dict[int, SessionEvent] = field(default_factory=dict)

    async def start(self) -> Service:
        self.store = StateStore(str(self.folder))
        self.directory = Directory(str(self.folder))
        self.owners: list[Owner] = []
        await self.add()
        fields = self.options.__dict__
        await self.directory.open("s", dict(fields), "token")
        return self

    async def add(self, **fields: Any) -> Owner:
        owner = make_owner(f"r{len(self.owners)}", self.store, self.directory, **fields)
        self.owners.append(owner)
        await self.directory.report(owner.name, f"r{len(self.owners) - 1}", owner.load())
        return owner

    async def lose(self) -> None:
        """The present owner is gone; another comes."""
        manifest = await self.directory.manifest("s")
        await self.add()
        if manifest.owner is not None:
            await self.directory.lost(manifest.owner, "killed")

    async def call(self, what: Callable[[Owner, Manifest], Awaitable[Any]]) -> Any:
        for _ in range(50):
            manifest = await self.directory.locate("s")
            owner = next(o for o in self.owners if o.name == manifest.owner)
            found = await what(owner, manifest)
            if not isinstance(found, Refusal):
                return found
            assert found.code == "stale", found
        raise AssertionError("nobody takes the call")

    async def give(self, inputs: list[Input], seq: int | None = None) -> list[Receipt]:
        found: list[Receipt] = await self.call(lambda o, m: o.give(m, inputs, seq, None))
        return found

    async def listen(self, until_quiet: bool = False) -> None:
        """Take in events; none may contradict one that was told before."""
        before, idle = None, 0
        # Not so many rounds in all: how long it takes to see everything again is the machine's.
        while idle < 400:
            # Before the events: what is dealt with by now has all its events by then.
            quiet = await self.call(_quiet)
            # A few again: what was told once may not change.
            after = max(0, max(self.told, default=0) - 3)
            found = await self.call(partial(_events, after))
            for event in found:
                old = self.told.setdefault(event.number, event)
                assert _rounded(old) == _rounded(event)
            counts = await self.call(lambda o, m: o.counts(m))
            everything = max(self.told, default=0) == counts["events"]
            if not until_quiet or (quiet and everything):
                return
            now = len(self.told), counts
            before, idle = now, 0 if now != before else idle + 1
            await asyncio.sleep(0.01)
        raise AssertionError("the session is never quiet")

    @property
    def events(self) -> list[Any]:
        assert sorted(self.told) == list(range(1, len(self.told) + 1))
        return [_rounded(self.told[number]) for number in sorted(self.told)]


async def _quiet(owner: Owner, manifest: Manifest) -> bool | Refusal:
    counts = await owner.counts(manifest)
    if isinstance(counts, Refusal):
        return counts
    return not counts["waiting_frames"] and not owner.load().waiting_questions


async def _events(after: int, owner: Owner, manifest: Manifest) -> list[SessionEvent] | Refusal:
    return await owner.events(manifest, after, 0.02)


def _rounded(event: SessionEvent) -> tuple[int, str, dict[str, Any]]:
    data = {k: round(v, 4) if isinstance(v, float) else v for k, v in event.data.items()}
    return event.number, event.type, data


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def _options(memory: str = "full") -> SessionOptions:
    return SessionOptions(memory=memory, memory_frames=32, max_tokens=MOST)  # type: ignore[arg-type]


def _input(number: int, asks: bool) -> Input:
    return Question(f"question {number}") if asks else Frame(FRAMES[number % len(FRAMES)])


def _plainly(folder: Path, inputs: list[Input], memory: str) -> list[Any]:
    async def work() -> list[Any]:
        service = await Service(folder, _options(memory)).start()
        for one in inputs:
            await service.give([one])
        await service.listen(until_quiet=True)
        return service.events

    found: list[Any] = _run(work())
    return found


@pytest.mark.slow
@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    plan=st.lists(
        st.tuples(
            st.lists(st.booleans(), min_size=1, max_size=9),
            st.sampled_from(
                ["", "", "lose", "keep", "offload", "relieve", "zombie", "repeat", "listen"]
            ),
        ),
        min_size=2,
        max_size=7,
    ),
    memory=st.sampled_from(["full", "window", "retrieve"]),
)
def test_a_session_tells_the_same_whoever_is_lost_whenever(
    tmp_path_factory: pytest.TempPathFactory, plan: list[tuple[list[bool], str]], memory: str
) -> None:
    """The promise: acknowledged inputs survive, and events are the same, number for number."""
    inputs: list[Input] = []
    pieces = []
    for asks, what in plan:
        piece = [_input(len(inputs) + i, ask) for i, ask in enumerate(asks)]
        inputs += piece
        pieces.append((piece, what))

    async def work() -> list[Any]:
        service = await Service(tmp_path_factory.mktemp("state"), _options(memory)).start()
        seq = 1
        for piece, what in pieces:
            receipts = await service.give(piece, seq)
            assert [r.seq for r in receipts] == list(range(seq, seq + len(piece)))
            manifest = await service.directory.locate("s")
            owner = next(o for o in service.owners if o.name == manifest.owner)
            if what == "lose":
                await service.lose()
            elif what == "zombie":
                # It goes on after it was declared lost: what it is given is refused.
                await service.lose()
                late = await owner.give(manifest, [_input(0, asks=False)], None, None)
                assert isinstance(late, Refusal)
            elif what == "relieve":
                # With what waits; it comes back to the same owner or, after a loss, to another.
                relieved = owner.load().relieved
                await owner._relief.relieve()
                assert owner.load().relieved == relieved + 1
                assert (await service.directory.manifest("s")).owner is None
            elif what in ("keep", "offload"):
                await service.listen(until_quiet=True)
                session = owner._sessions["s"]
                if what == "keep":
                    assert await owner._keep(session, in_memory=True)
                else:
                    await owner._offload(session)
                    assert (await service.directory.manifest("s")).owner is None
            elif what == "repeat":
                again = await service.give(piece, seq)
                assert all(r.repeated for r in again)
            elif what == "listen":
                await service.listen()
            seq += len(piece)
        await service.listen(until_quiet=True)
        return service.events

    assert _run(work()) == _plainly(tmp_path_factory.mktemp("plain"), inputs, memory)


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(6))
def test_a_cancelled_turn_stays_as_it_was_told(tmp_path: Path, moment: int) -> None:
    """Guards the record of a turn's end: the next owner ends it after as many words."""

    async def work() -> None:
        service = await Service(tmp_path, _options()).start()
        await service.give([_input(i, asks=False) for i in range(12)])
        receipts = await service.give([Question("first"), Question("second"), _input(12, False)])
        for _ in range(moment):
            await service.listen()
        which = [None, receipts[0].response, receipts[1].response][moment % 3]
        done = await service.call(lambda o, m: o.cancel(m, which))
        await service.listen()
        await service.lose()
        await service.listen(until_quiet=True)
        ended = {
            e.data["response"]: e.data["status"]
            for e in service.told.values()
            if e.type == "response.done"
        }
        assert set(ended) == {r.response for r in receipts if r.response}
        if which is not None:
            assert (ended[which] == "cancelled") == done
        seen = [e.data["frame"] for e in service.told.values() if e.type == "frame.seen"]
        assert seen == list(range(13))

    _run(work())


def test_calls_without_numbers_are_told_apart_by_their_tokens(tmp_path: Path) -> None:
    """Guards against an input applied twice because its answer was lost with the owner."""

    async def work() -> None:
        service = await Service(tmp_path, _options()).start()

        async def give(token: str, number: int) -> list[Receipt]:
            inputs: list[Input] = [_input(number, asks=False)]
            found: list[Receipt] = await service.call(lambda o, m: o.give(m, inputs, None, token))
            return found

        first = await give("a", 0)
        other = await give("b", 1)
        await service.lose()
        again = await give("a", 0)
        assert (again[0].seq, again[0].repeated) == (first[0].seq, True)
        third = await give("c", 2)
        assert [r[0].seq for r in (first, other, third)] == [1, 2, 3]
        await service.listen(until_quiet=True)
        seen = [e.data["frame"] for e in service.told.values() if e.type == "frame.seen"]
        assert seen == [0, 1, 2]

    _run(work())


def test_a_receipt_says_after_which_event_to_listen(tmp_path: Path) -> None:
    """Guards whoever waits for what an input leads to: nothing of it is told before that event,
    nobody is sent through all that was told earlier, and of a repeated one it may be anywhere."""

    async def work() -> None:
        service = await Service(tmp_path, _options()).start()
        for number in range(3):
            before = max(service.told, default=0)
            inputs = [_input(2 * number, asks=False), _input(2 * number + 1, asks=True)]
            receipts = await service.give(inputs)
            assert [receipt.event for receipt in receipts] == [before, before]
            await service.listen(until_quiet=True)
            about = [n for n, e in service.told.items() if e.data.get("frame") == number]
            about += [
                n for n, e in service.told.items() if e.data.get("response") == receipts[1].response
            ]
            assert min(about) > before
        again = await service.give([_input(0, asks=False)], seq=1)
        assert [(receipt.repeated, receipt.event) for receipt in again] == [(True, 0)]

    _run(work())


@pytest.mark.slow
def test_callers_that_leave_harm_nothing(tmp_path: Path) -> None:
    """Guards against a client that vanishes in the middle of a call: the session, the log and the
    engine go on, and what it gave again is applied once."""

    async def work() -> None:
        service = await Service(tmp_path, _options()).start()
        for number in range(30):
            if number == 15:
                await service.lose()
            given: list[Input] = [_input(number, asks=False)]
            left = asyncio.ensure_future(service.give(given, number + 1))
            await asyncio.sleep(number % 15 * 4e-4)
            left.cancel()
            await asyncio.wait([left])
            (receipt,) = await asyncio.wait_for(service.give(given, number + 1), 20)
            assert receipt.frame == number
        await service.listen(until_quiet=True)
        seen = [e.data["frame"] for e in service.told.values() if e.type == "frame.seen"]
        assert seen == list(range(30))

    _run(work())


def test_a_frame_of_the_wrong_shape_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    async def work() -> None:
        service = await Service(tmp_path, _options()).start()
        manifest = await service.directory.locate("s")
        wrong = Frame(np.zeros((3, 3, 3), np.uint8))
        refused = await service.owners[0].give(manifest, [wrong], None, None)
        assert isinstance(refused, Refusal)
        assert refused.code == "invalid_frame"
        assert [r.seq for r in await service.give([_input(0, asks=False)])] == [1]

    _run(work())


def test_a_question_that_would_hold_up_everybody_is_refused(tmp_path: Path) -> None:
    async def work() -> None:
        service = await Service(tmp_path, _options()).start()
        manifest = await service.directory.locate("s")
        long: list[Input] = [Question("?" * 5000)]
        refused = await service.owners[0].give(manifest, long, None, None)
        assert isinstance(refused, Refusal)
        assert "4096 characters, not 5000" in refused.message
        assert [r.seq for r in await service.give([Question("short")])] == [1]

    _run(work())


def test_readers_hear_that_a_session_was_closed(tmp_path: Path) -> None:
    """Guards against a listener who is told that the session it listens to does not exist."""

    async def work() -> None:
        service = await Service(tmp_path, _options()).start()
        await service.give([_input(0, asks=False)])
        await service.listen(until_quiet=True)
        manifest = await service.directory.locate("s")
        last = max(service.told)
        waiting = asyncio.create_task(service.owners[0].events(manifest, last, 5.0))
        await asyncio.sleep(0.05)
        counts = await service.owners[0].drop(manifest.life)
        await service.directory.forget(manifest.life)
        for found in (await waiting, await service.owners[0].events(manifest, last, 5.0)):
            assert not isinstance(found, Refusal)
            assert [event.type for event in found] == ["session.closed"]
        assert counts is not None
        assert (counts["seq"], counts["frames"], counts["events"]) == (1, 1, last + 1)

    _run(work())


def test_a_session_that_was_closed_elsewhere_is_not_found(tmp_path: Path) -> None:
    """Guards against a caller that waits for a replica where there is nothing to wait for."""

    async def work() -> None:
        service = await Service(tmp_path, _options()).start()
        manifest = await service.directory.locate("s")
        await service.directory.forget(manifest.life)
        refused = await service.owners[0].give(manifest, [_input(0, asks=False)], None, None)
        assert isinstance(refused, Refusal)
        assert refused.code == "session_not_found"

    _run(work())


def test_answers_end_at_their_bound_and_say_so(tmp_path: Path) -> None:
    async def work() -> None:
        service = await Service(tmp_path, _options()).start()
        await service.give([Question("long", max_tokens=1), Question("longer", max_tokens=MOST)])
        await service.listen(until_quiet=True)
        ended = [e.data for e in service.told.values() if e.type == "response.done"]
        assert (ended[0]["status"], ended[0]["output_tokens"]) == ("length", 1)
        assert ended[1]["output_tokens"] <= MOST

    _run(work())


@pytest.mark.slow
def test_a_name_that_is_used_anew_is_another_session(tmp_path: Path) -> None:
    """Guards against what one client's session said or heard reaching the next of that name."""

    async def scenario() -> None:
        service = await Service(tmp_path, SessionOptions()).start()
        (owner,) = service.owners
        old = await service.directory.locate("s")
        await service.give([Frame(FRAMES[0]), Question("Why?")])
        await service.listen(until_quiet=True)
        await owner.drop(old.life)
        await service.directory.forget(old.life)
        assert await owner.events(old, 0, 0.0), "the last events can still be read"
        await service.directory.open("s", dict(service.options.__dict__), "another token")
        new = await service.directory.locate("s")
        assert (new.owner, new.epoch) == (old.owner, old.epoch)
        assert await owner.events(new, 0, 0.0) == []
        for refused in (
            await owner.give(old, [Frame(FRAMES[1])], None, None),
            await owner.counts(old),
        ):
            assert isinstance(refused, Refusal)
            assert refused.code == "stale"
        counts = await owner.counts(new)
        assert isinstance(counts, dict)
        assert counts["seq"] == 0

    asyncio.run(scenario())


@pytest.mark.slow
def test_a_name_that_is_used_anew_has_no_past(tmp_path: Path) -> None:
    """Guards against inputs of a closed session in the next of its name, once its replica is lost:
    they stay in the log, beside another's that are still needed."""

    async def scenario() -> None:
        service = await Service(tmp_path, SessionOptions()).start()
        (owner,) = service.owners
        other = await service.directory.open("other", dict(service.options.__dict__), "token")
        for _ in range(3):
            together = threading.Event()
            assert owner._log is not None
            owner._log._queue.put(lambda event=together: event.wait())  # type: ignore[misc]
            giving = asyncio.gather(
                service.give([Question("Old?")]), owner.give(other, [Question("?")], None, None)
            )
            while owner._log._queue.qsize() < 2:
                await asyncio.sleep(0.001)
            together.set()
            await giving
        old = await service.directory.locate("s")
        await owner.drop(old.life)
        await service.directory.forget(old.life)
        assert len(list(service.store.records(owner.name))) == 6
        await service.directory.open("s", dict(service.options.__dict__), "another token")
        await service.give([Question("New?")])
        await owner.drop(old.life)  # it came late
        await service.lose()
        counts = await service.call(lambda o, m: o.counts(m))
        assert counts["seq"] == 1
        assert (await service.give([Question("And now?")]))[0].seq == 2

    asyncio.run(scenario())


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["reading", "computing"])
def test_who_is_declared_lost_while_it_takes_a_session_in_does_not_have_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Guards inputs against a log that nobody reads: that of the owner which this one is then."""

    async def scenario() -> None:
        service = await Service(tmp_path, SessionOptions()).start()
        (owner,) = service.owners
        lost, manifest = owner.name, await service.directory.locate("s")
        kind, name = (Past, "of") if moment == "reading" else (LiveSession, "begin")
        original = getattr(kind, name)

        async def meanwhile(*args: Any, **others: Any) -> Any:
            await owner._begin_anew(lost)
            return await original(*args, **others)

        with monkeypatch.context() as patch:
            patch.setattr(kind, name, meanwhile)
            refused = await owner.give(manifest, [Question("Who has it?")], None, None)
        assert isinstance(refused, Refusal)
        assert refused.code == "stale"
        anew = owner.name
        assert anew != lost
        # Whoever finds it out as well changes nothing any more.
        await owner._begin_anew(lost)
        assert owner.name == anew
        await service.directory.report(anew, "r0", owner.load())
        await service.directory.lost(lost, "it hung")
        (receipt,) = await service.give([Question("And now?")])
        assert receipt.seq == 1
        assert [record.seq for record in service.store.records(anew)] == [1]

    asyncio.run(scenario())


@pytest.mark.slow
def test_an_idle_session_comes_back_without_a_look_at_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards callers of an idle session, and of one whose name was used before, against waiting
    until all that the replica logged of others is read, and sessions of one that is lost later."""

    async def work() -> None:
        service = await Service(tmp_path, _options()).start()
        (owner,) = service.owners
        await service.give([_input(0, asks=False)])
        await service.listen(until_quiet=True)
        with monkeypatch.context() as patch:
            patch.setattr(service.store, "records", None)
            await owner._offload(owner._sessions["s"])
            assert [r.seq for r in await service.give([_input(1, asks=False)])] == [2]
            old = await service.directory.locate("s")
            await service.directory.forget(old.life)
            await owner.drop(old.life)
            await service.directory.open("s", dict(service.options.__dict__), "another token")
            assert [r.seq for r in await service.give([_input(0, asks=False)])] == [1]
        await service.lose()
        assert [r.seq for r in await service.give([_input(1, asks=False)])] == [2]

    _run(work())


@pytest.mark.slow
def test_a_name_that_is_used_anew_while_its_session_ends_is_taken_in_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against two sessions of one name in a replica, each of which numbers and acknowledges
    inputs that the other never sees."""

    async def work() -> None:
        service = await Service(tmp_path, _options()).start()
        (owner,) = service.owners
        await service.give([_input(0, asks=False)])
        old = await service.directory.locate("s")
        ended, reading, go = asyncio.Event(), asyncio.Event(), asyncio.Event()
        end, read = LiveSession.end, Past.of

        async def slowly_ended(session: LiveSession, *, told: bool) -> None:
            await ended.wait()
            await end(session, told=told)

        async def slowly_read(*args: Any, **others: Any) -> Any:
            reading.set()
            await go.wait()
            return await read(*args, **others)

        monkeypatch.setattr(LiveSession, "end", slowly_ended)
        monkeypatch.setattr(Past, "of", slowly_read)
        dropping = asyncio.create_task(owner.drop(old.life))
        await service.directory.forget(old.life)
        await service.directory.open("s", dict(service.options.__dict__), "another token")
        first = asyncio.create_task(service.give([_input(0, asks=False)]))
        await asyncio.sleep(0.05)
        ended.set()
        await dropping
        await asyncio.wait_for(reading.wait(), 5)
        second = asyncio.create_task(service.give([_input(1, asks=False)]))
        await asyncio.sleep(0.05)
        go.set()
        assert sorted(r.seq for r in await first + await second) == [1, 2]

    _run(work())


@pytest.mark.slow
def test_a_session_is_not_taken_in_while_its_log_is_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards inputs against an engine that fails while a snapshot is written: who goes on from the
    one before would miss what only the new one holds."""

    async def work() -> None:
        service = await Service(tmp_path, _options()).start()
        (owner,) = service.owners
        await service.give([_input(0, asks=False)])
        await service.listen(until_quiet=True)
        session, go = owner._sessions["s"], asyncio.Event()
        told, read = service.directory.kept, Past.of

        async def kept(*args: Any, **others: Any) -> bool:
            await go.wait()
            return await told(*args, **others)

        async def of(*args: Any, **others: Any) -> Any:
            go.set()
            await keeping
            await asyncio.to_thread(_settled, owner)
            return await read(*args, **others)

        monkeypatch.setattr(service.directory, "kept", kept)
        monkeypatch.setattr(Past, "of", of)
        keeping = asyncio.create_task(owner._renew(session))
        await asyncio.sleep(0.05)
        session._break(ModelError("the engine failed"))
        giving = asyncio.create_task(service.give([_input(1, asks=False)]))
        await asyncio.sleep(0.05)
        go.set()
        assert [r.seq for r in await giving] == [2]

    _run(work())


def test_what_is_being_written_when_the_engine_fails_is_taken_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards inputs that are acknowledged by a session that the engine has lost meanwhile: the one
    in its place would have read the log before they were in it."""

    async def work() -> None:
        service = await Service(tmp_path, _options()).start()
        (owner,) = service.owners
        await service.give([_input(0, asks=False)])
        began, go, append = threading.Event(), threading.Event(), service.store.append

        def slow(*args: Any) -> None:
            began.set()
            go.wait(5)
            append(*args)

        monkeypatch.setattr(service.store, "append", slow)
        first = asyncio.create_task(service.give([_input(1, asks=False)]))
        await asyncio.to_thread(began.wait, 5)
        owner._sessions["s"]._break(ModelError("the engine failed"))
        second = asyncio.create_task(service.give([_input(2, asks=False)]))
        await asyncio.sleep(0.05)
        go.set()
        assert [r.seq for r in await first + await second] == [2, 3]
        await service.listen(until_quiet=True)
        seen = [e.data["frame"] for e in service.told.values() if e.type == "frame.seen"]
        assert seen == [0, 1, 2]

    _run(work())


def test_who_is_declared_lost_while_a_session_leaves_does_not_keep_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against a session of the owner before in the memory of the one that this one is now,
    where it would be told of, and take the place of the one that goes on."""

    async def work() -> None:
        service = await Service(tmp_path, _options()).start()
        (owner,) = service.owners
        await service.give([_input(0, asks=False)])

        async def busy(*_: Any, **__: Any) -> None:
            await owner._begin_anew(owner.name)

        monkeypatch.setattr(LiveSession, "snapshot", busy)
        await owner._offload(owner._sessions["s"])
        assert not owner._sessions

    _run(work())


def _settled(owner: Owner) -> None:
    """Wait until the log has done all that it was told before."""
    done = threading.Event()
    assert owner._log is not None
    owner._log._queue.put(done.set)
    done.wait(5)
