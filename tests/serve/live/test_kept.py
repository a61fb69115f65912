"""What the router kept of a session's frames, asked of the replica that has it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from serve.live.items import Frame, Kept, Refusal
from tests.serve.live.test_owner import FRAMES, Service, _options


@pytest.mark.slow
def test_it_is_told_of_frames_that_were_seen_and_replayed(tmp_path: Path) -> None:
    """Guards against a view that a session without it pays for, that fails the session when it has
    nothing, or that differs after the log was replayed."""

    async def kept(service: Service, frame: int) -> Any:
        manifest = await service.directory.locate("s")
        owner = next(o for o in service.owners if o.name == manifest.owner)
        return await owner.kept(manifest, frame)

    async def work() -> None:
        service = await Service(tmp_path / "kept", replace(_options(), kept=True)).start()
        await service.give([Frame(pixels) for pixels in FRAMES[:9]])
        await service.listen(until_quiet=True)
        before = [await kept(service, number) for number in range(9)]
        assert all(isinstance(each, Kept) for each in before)
        assert [each.frame for each in before] == list(range(9))
        assert len({tuple(each.counts) for each in before}) > 1
        for number in (9, 10**9):
            refused = await kept(service, number)
            assert isinstance(refused, Refusal)
            assert refused.code == "frame_not_found"
        await service.lose()
        await service.listen(until_quiet=True)
        assert [await kept(service, number) for number in range(9)] == before

        without = await Service(tmp_path / "without", _options()).start()
        await without.give([Frame(FRAMES[0])])
        await without.listen(until_quiet=True)
        refused = await kept(without, 0)
        assert isinstance(refused, Refusal)
        assert refused.code == "invalid_value"

    asyncio.run(work())
