"""The service that modules lose replicas of, and what its sessions say while they lose none."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.serve.survivors import Service, deployed, undisturbed
from tests.serve.transcripts import Event


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with deployed(str(tmp_path_factory.mktemp("state"))) as found:
        yield found


@pytest.fixture(scope="module")
def calm(service: Service) -> list[list[Event]]:
    """What the sessions of ``SEEDS`` say when nothing happens to them."""
    return undisturbed(service)
