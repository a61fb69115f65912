"""The place that a process is kept out of: the state store, for jobs that clients with keys send.

Whether an object lies there is asked where it is opened, by the node that opens it. So it does not
matter what led there: a name that the job was given, a link, a manifest's entry.
"""

from __future__ import annotations

import posixpath

#: Variable with the place's uri, in the environment of a job's driver and of all its workers.
KEEP_OUT = "LONGREEL_KEEP_OUT"


def lies_in(uri: str, place: str) -> bool:
    """Whether ``uri`` is ``place`` or lies in it.

    Args:
        uri, place: normalized. Keys in S3 are compared as if they were paths: ``..`` and empty
            names in them are resolved by ``join_uri``, and by some stores.
    """
    return _folder(uri).startswith(_folder(place))


def _folder(uri: str) -> str:
    if uri.startswith("s3://"):
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        uri = f"s3://{bucket}{posixpath.normpath('/' + key.lstrip('/'))}"
    return uri.rstrip("/") + "/"
