"""The record of a job beside its rows: whose they are, how they are made, what was asked for."""

from __future__ import annotations

import json
import platform
import re
import secrets
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from actors.objects import join_uri, read_bytes, write_bytes
from longreel import __version__
from longreel.errors import LongreelError, StorageError, UsageError

#: Fit for a row, a path of the Jobs API and the name of a log file.
_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
#: What decides how rows come out, beside longreel itself.
_LIBRARIES = ("av", "ray", "torch", "transformers")


def new_job_id() -> str:
    """An id that no other job has; it sorts by when it was made."""
    return f"job-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"


def check_job_id(job_id: str) -> None:
    """Refuse what cannot be a job's id. Raises ``UsageError``."""
    if not _JOB_ID.fullmatch(job_id):
        raise UsageError(
            "--job-id must be 1 to 64 letters (a-z), digits, '-', '_' or '.' and begin with a "
            f"letter or digit, not {job_id!r}"
        )


def versions() -> dict[str, str]:
    """Versions of Python, longreel and what rows depend on; nothing is imported for it."""
    found = {"longreel": __version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def read_record(output: str) -> dict[str, Any] | None:
    """The record in ``output``, None when no job began there.

    Raises:
        StorageError: it could not be read.
        LongreelError: what lies there is no record.
    """
    uri = _uri(output)
    try:
        text = read_bytes(uri)
    except StorageError as failure:
        if failure.kind == "NotFound":
            return None
        raise
    try:
        record = json.loads(text)
        record["job_id"], record["recipe"]
    except (ValueError, KeyError, TypeError):
        raise LongreelError(f"{uri} is not the record of a job") from None
    return dict(record)


def write_record(output: str, record: dict[str, Any]) -> None:
    """Put ``record`` in place of the one in ``output``, if any. Raises ``StorageError``."""
    write_bytes(_uri(output), json.dumps(record, indent=2).encode())


def _uri(output: str) -> str:
    return join_uri(output, "_longreel", "job.json")
