"""Fixtures that several folders share: the object store and buckets in it."""

from __future__ import annotations

import gc
import itertools
import os
import signal
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ReadTimeoutError

from infra.objectstore import ObjectStore

# A cluster that Ray starts in this process makes it, and all that it starts from then on, ask for
# a token: no module's cluster shall decide for the next one's. Commands that tests run as users do
# get no variable of Ray's, and so its default.
os.environ["RAY_AUTH_MODE"] = "disabled"
# As nice as Ray makes them, its workers would stand behind all tests that run beside a cluster's.
os.environ.setdefault("RAY_worker_niceness", "0")

# What a shell starts in the background ignores Ctrl-C, and so would all commands of these tests.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_numbers = itertools.count(1)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """Of several workers, what ``tests.workers`` says."""
    from tests.workers import FilesAndKinds  # without several it need not be there

    return FilesAndKinds(config, log)


def pytest_collection_finish() -> None:
    """What was imported stays: the garbage collector need not look through it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def objectstore() -> Iterator[ObjectStore]:
    """A running store that the AWS_* variables of this process point at."""
    with ObjectStore() as store, pytest.MonkeyPatch.context() as patch:
        # What lies on the machine must not decide where a test's bytes go.
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
            patch.delenv(name, raising=False)
        for name, value in store.environment().items():
            patch.setenv(name, value)
        yield store


@pytest.fixture
def bucket(objectstore: ObjectStore) -> str:
    """The name of a fresh bucket."""
    # Swift was seen to hang on one bucket for its whole minute, among thousands.
    patience = Config(read_timeout=15, retries={"total_max_attempts": 1})
    client = boto3.client("s3", endpoint_url=objectstore.endpoint_url, config=patience)
    try:
        name = f"bucket-{next(_numbers)}"
        client.create_bucket(Bucket=name)
    except ReadTimeoutError:
        name = f"bucket-{next(_numbers)}"
        client.create_bucket(Bucket=name)
    return name
