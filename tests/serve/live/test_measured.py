"""What owners count of sessions: each input once, whoever has to take it in again."""

from __future__ import annotations

import asyncio
from pathlib import Path

from serve.live.items import Frame, Question, SessionOptions
from serve.observe.instruments import REPLICA
from tests.serve.live.test_owner import FRAMES, Service


def _values() -> dict[str, float]:
    return {
        own + "".join(f" {v}" for k, v in sorted(labels.items()) if k != "le"): value
        for _, own, labels, value in REPLICA.samples()
        if not own.endswith("_bucket")
    }


class _Since:
    """How much a metric has grown since this was made."""

    def __init__(self) -> None:
        self._before = _values()

    def __getitem__(self, name: str) -> float:
        return _values()[name] - self._before[name]


def test_what_a_log_gives_again_is_not_counted_again(tmp_path: Path) -> None:
    """Guards lags and rates against recoveries: a replayed frame is hours late, and is not new."""

    async def scenario() -> None:
        since = _Since()
        service = await Service(tmp_path, SessionOptions(max_tokens=3)).start()
        await service.give([Frame(pixels, n / 2) for n, pixels in enumerate(FRAMES[:10])])
        await service.give([Frame(FRAMES[0], 1.0)])
        await service.give([Question("What is there?", max_tokens=2)])
        await _quiet(service)
        await service.lose()
        await service.give([Frame(FRAMES[10], 20.0)])
        await _quiet(service)
        assert since["longreel_frames_accepted_total live"] == 11
        assert since["longreel_frames_dropped_total late"] == 1
        assert since["longreel_frame_lag_seconds_count live"] == 11
        assert since["longreel_answer_seconds_count"] == 1
        assert since["longreel_answer_first_word_seconds_count"] == 1
        assert since["longreel_answers_total length"] == 1
        assert since["longreel_session_recovery_seconds_count lost"] == 1
        assert since["longreel_session_recovery_seconds_count idle"] == 0
        assert 0 < since["longreel_session_recovery_seconds_sum lost"] < 60
        told = [e for e in service.told.values() if e.type == "narration"]
        assert since["longreel_narrations_total live"] == len(told)
        assert since["longreel_store_write_seconds_count log"] >= 3

    asyncio.run(scenario())


async def _quiet(service: Service) -> None:
    """Until nothing waits, with all events read."""
    async with asyncio.timeout(60):
        while any(s.transcript.waiting for o in service.owners for s in o._sessions.values()):
            await asyncio.sleep(0.01)
    await service.listen(until_quiet=True)


def test_idle_sessions_that_leave_and_return_are_told_apart_from_lost_ones(tmp_path: Path) -> None:
    """Guards the alert about recoveries: a session that was only idle is no trouble."""

    async def scenario() -> None:
        since = _Since()
        service = await Service(tmp_path, SessionOptions()).start()
        (owner,) = service.owners
        await service.give([Frame(FRAMES[0])])
        await _quiet(service)
        (session,) = owner._sessions.values()
        await owner._offload(session)
        assert since["longreel_session_offloads_total"] == 1
        assert since["longreel_snapshot_bytes_total"] > 100
        assert since["longreel_store_write_seconds_count snapshot"] == 1
        await service.give([Frame(FRAMES[1])])
        assert since["longreel_session_recovery_seconds_count idle"] == 1
        assert since["longreel_session_recovery_seconds_count lost"] == 0

    asyncio.run(scenario())


def test_a_store_that_fails_is_told_of(tmp_path: Path) -> None:
    """Guards against a store that takes nothing while all that is seen is 503."""

    async def scenario() -> None:
        service = await Service(tmp_path, SessionOptions()).start()
        (owner,) = service.owners
        await service.give([Frame(FRAMES[0])])
        since = _Since()
        log = tmp_path / "owners" / owner.name / "log"
        for file in log.iterdir():
            file.unlink()
        log.rmdir()
        log.write_text("no folder")
        manifest = await service.directory.locate("s")
        refused = await owner.give(manifest, [Frame(FRAMES[1])], None, None)
        assert getattr(refused, "code", None) == "unavailable", refused
        assert since["longreel_store_failures_total log"] == 1
        assert since["longreel_frames_accepted_total live"] == 0

    asyncio.run(scenario())
