"""What is remembered for a while, on a clock that the test sets."""

from __future__ import annotations

import asyncio

from serve.remembered import Remembered


def test_a_value_that_is_put_anew_has_its_whole_time() -> None:
    """Guards the second of two values under a name: the time of the first ends in its own."""

    async def work() -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        loop.time = lambda: now  # type: ignore[method-assign]
        names = Remembered[int](10.0)

        async def later(seconds: float) -> int | None:
            nonlocal now
            now += seconds
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            return names.get("door")

        names.put("door", 1)
        assert await later(6) == 1
        names.put("door", 2)
        assert await later(6) == 2
        assert await later(6) is None
        names.put("door", 3)
        names.forget("door")
        assert names.get("door") is None
        names.put("door", 4)
        assert await later(6) == 4

    asyncio.run(work())
