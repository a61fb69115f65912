"""Rows into Parquet files of sensible size, each written whole or not at all."""

from __future__ import annotations

import io
import time
import uuid
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from actors.objects import join_uri, write_bytes

#: A file is written when its rows reach this size or number, or its oldest row an age, in
#: seconds, that doubles with each file: a kill early in a job finds something saved, and a long
#: job does not end in a thousand small files.
MAX_BYTES = 64 * 2**20
MAX_ROWS = 4096
FIRST_AGE_S, LAST_AGE_S = 2.0, 120.0


class RowFiles:
    """Collects rows of one schema and writes them to ``folder`` file by file.

    Until ``flush`` or a bound is reached rows live in memory only: whoever dies before has not
    written them, and the job does that work again.

    Args:
        guard: called before each file is written; raises where it must not be.
    """

    def __init__(self, folder: str, schema: pa.Schema, guard: Callable[[], None]) -> None:
        self._folder = folder
        self._schema = schema
        self._guard = guard
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0
        self._since = 0.0
        #: Of the file that these rows go into: another attempt writes the same one, since the first
        #: may have reached a store that gave no answer.
        self._uri: str | None = None
        self._max_age = FIRST_AGE_S

    def add(self, row: dict[str, Any]) -> None:
        """Take one row; writes a file when a bound is reached.

        Raises:
            StorageError: the file could not be written; the rows stay and are tried again.
        """
        if not self._rows:
            self._since = time.monotonic()
        self._rows.append(row)
        self._bytes += sum(len(k["jpeg"] or b"") for k in row.get("keyframes") or ()) + 1024
        old = time.monotonic() - self._since >= self._max_age
        if self._bytes >= MAX_BYTES or len(self._rows) >= MAX_ROWS or old:
            self.flush()
            self._max_age = min(LAST_AGE_S, 2 * self._max_age)

    def flush(self) -> None:
        """Write what has been collected, if anything."""
        if self._rows:
            self._guard()
            self._uri = self._uri or _new_file(self._folder)
            replace_rows(self._uri, pa.Table.from_pylist(self._rows, schema=self._schema))
            self._rows, self._bytes, self._uri = [], 0, None


def write_rows(folder: str, rows: list[dict[str, Any]], schema: pa.Schema) -> str:
    """Write ``rows`` as one new Parquet file in ``folder`` and return its uri."""
    uri = _new_file(folder)
    replace_rows(uri, pa.Table.from_pylist(rows, schema=schema))
    return uri


def replace_rows(uri: str, table: pa.Table) -> None:
    """Write the file at ``uri`` whole, in place of what may be there."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    write_bytes(uri, buffer.getvalue())


def _new_file(folder: str) -> str:
    name = f"part-{time.strftime('%Y%m%dT%H%M%S')}-{uuid.uuid4().hex[:12]}.parquet"
    return join_uri(folder, name)
