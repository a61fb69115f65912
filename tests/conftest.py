"""Fixtures that several folders share: the object store and buckets in it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import boto3
import pytest

from infra.objectstore import ObjectStore

# A cluster that Ray starts in this process makes it, and all that it starts from then on, ask for
# a token: no module's cluster shall decide for the next one's. Commands that tests run as users do
# get no variable of Ray's, and so its default.
os.environ["RAY_AUTH_MODE"] = "disabled"

_numbers = itertools.count(1)


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
    name = f"bucket-{next(_numbers)}"
    boto3.client("s3", endpoint_url=objectstore.endpoint_url).create_bucket(Bucket=name)
    return name
