"""A question as long as the API takes: whoever asks it waits for it, and nobody else does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from tests.serve.scripts import Push, film
from tests.serve.survival import Client, live
from tests.serve.survivors import Service, deployed, owner

pytestmark = [pytest.mark.ray, pytest.mark.slow]
#: Far more than a push takes when nobody asks anything, on cores that others use as well.
SOON_S = 5.0


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with deployed(str(tmp_path_factory.mktemp("state"))) as found:
        yield found


@pytest.mark.long
def test_a_long_question_holds_up_nobody_else(service: Service) -> None:
    """Guards the other sessions of a replica against one client's very long text."""

    async def run() -> None:
        names = [f"beside-{n}" for n in range(4)]
        async with live(service.address, names) as sessions:
            asker = sessions.clients[0]
            held = await owner(asker)
            beside: list[Client] = [c for c in sessions.clients[1:] if (await owner(c)) == held]
            assert beside, "the sessions are not spread as they were"
            for client in (asker, *beside):
                await client.push(Push(1, film(0, 1), (0.0,)))
            took = []

            async def watch() -> None:
                for n in range(10_000):
                    begun = time.monotonic()
                    await beside[0].push(Push(2 + n, film(0, 1), (1.0 + n,)))
                    took.append(time.monotonic() - begun)
                    await asyncio.sleep(0.1)

            watching = asyncio.create_task(watch())
            length, status = 32_000, 0
            while status != 200:
                # What is refused costs nobody anything; the longest that is taken may not either.
                asked = {"input": "?" * length, "seq": 2, "max_output_tokens": 5}
                reply = await sessions.http.post(f"{asker.path}/responses", json=asked, timeout=600)
                status, length = reply.status_code, length * 3 // 4
                assert status in (200, 400, 413, 422), reply.text
            await asyncio.sleep(1)
            watching.cancel()
            print(f"{length * 4 // 3} characters; the others' longest push {max(took):.2f} s")
            assert max(took) < SOON_S, took
            await sessions.end()

    asyncio.run(run())
