"""Rows in Parquet files of one folder, local or in S3: read back, and taken out."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from actors.objects import delete_object, list_objects, open_object
from actors.rowfiles import replace_rows
from longreel.errors import LongreelError, StorageError, UsageError

#: What pyarrow raises of bytes that are no Parquet, or damaged: its own errors, a plain one for a
#: footer, a third one for names in it. What the store raises comes through it as it is.
UNREADABLE = (pa.ArrowException, OSError, UnicodeDecodeError)
#: Files read side by side: each is a few short requests, one after the other.
_READERS = 8


def read_table(
    folder: str,
    schema: pa.Schema,
    *,
    columns: Sequence[str] | None = None,
    where: pc.Expression | None = None,
    files: Sequence[str] | None = None,
) -> pa.Table:
    """All rows of the Parquet files in ``folder``; empty when there is no such folder.

    Args:
        columns: only these; None means all.
        where: only rows for which this holds.
        files: uris of the only files to look into, where others cannot hold such rows.

    Raises:
        StorageError: a file cannot be read.
        UsageError: a file has other columns, as another version writes them; read as these they
            would come back with holes.
        LongreelError: a file is no Parquet file.
    """
    names = list(columns or schema.names)
    read = partial(_read_file, schema=schema, columns=names, where=where)
    with ThreadPoolExecutor(_READERS) as pool:
        tables = list(pool.map(read, parquet_files(folder) if files is None else files))
    return pa.concat_tables(tables) if tables else schema.empty_table().select(names)


def read_rows(folder: str, schema: pa.Schema, **options: Any) -> list[dict[str, Any]]:
    """``read_table`` as dictionaries."""
    rows: list[dict[str, Any]] = read_table(folder, schema, **options).to_pylist()
    return rows


def files_by(folder: str, schema: pa.Schema, key: str) -> dict[str, list[str]]:
    """In which files of ``folder`` each value of the column ``key`` stands."""
    found: dict[str, list[str]] = {}
    for uri in parquet_files(folder):
        for name in set(_read_file(uri, schema, [key], None)[key].to_pylist()):
            found.setdefault(name, []).append(uri)
    return found


def drop_rows(folder: str, schema: pa.Schema, where: pc.Expression, keys: Sequence[str]) -> None:
    """Take out the rows for which ``where`` holds; each file is replaced at once or left alone.

    Args:
        where: true or false, never null, for every row.
        keys: the columns that ``where`` speaks of.
    """
    for uri in parquet_files(folder):
        if _read_file(uri, schema, keys, where).num_rows:
            _keep(uri, _read_file(uri, schema, schema.names, ~where))


def drop_repeated(folder: str, schema: pa.Schema, key: str) -> None:
    """Leave one row of each ``key``, in the file written last of those that have it."""
    seen: set[str] = set()
    for uri in reversed(parquet_files(folder)):
        names = _read_file(uri, schema, [key], None)[key].to_pylist()
        first = {name: i for i, name in reversed(list(enumerate(names))) if name not in seen}
        seen |= first.keys()
        if len(first) < len(names):
            rows = _read_file(uri, schema, schema.names, None)
            _keep(uri, rows.take(pa.array(sorted(first.values()), pa.int64())))


def parquet_files(folder: str) -> list[str]:
    """Uris of the Parquet files in ``folder``, sorted; none when there is no such folder."""
    try:
        return [o.uri for o in list_objects(folder) if o.uri.endswith(".parquet")]
    except StorageError as failure:
        if failure.kind == "NotFound":
            return []
        raise


def require_schema(folder: str, schema: pa.Schema) -> None:
    """See that rows in ``folder`` are of this schema, by the file written last.

    Raises:
        UsageError: they are not.
    """
    for uri in parquet_files(folder)[-1:]:
        _read_file(uri, schema, schema.names[:1], None)


def _keep(uri: str, rows: pa.Table) -> None:
    if rows.num_rows:
        replace_rows(uri, rows)
    else:
        delete_object(uri)


def _read_file(
    uri: str, schema: pa.Schema, columns: Sequence[str], where: pc.Expression | None
) -> pa.Table:
    # Not by pyarrow's own S3 client, which waits for ever on a body that only drips. Nor by its
    # threads: they may still hold the file when it is closed, and then end the whole process.
    try:
        with open_object(uri) as file:
            _require(pq.read_schema(file), schema, uri)
            file.seek(0)
            if where is None:
                rows = pq.ParquetFile(file).read(list(columns), use_threads=False)
                return rows.select(list(columns))
            return pq.read_table(
                file, columns=list(columns), filters=where, use_threads=False, pre_buffer=False
            )
    except UNREADABLE as failure:
        reason = (str(failure).strip().splitlines() or [type(failure).__name__])[0]
        raise LongreelError(f"cannot read {uri}: {reason}") from None


def _require(found: pa.Schema, schema: pa.Schema, uri: str) -> None:
    if found.equals(schema):
        return
    changed = [
        *(f"lacks {name!r}" for name in schema.names if name not in found.names),
        *(f"has {name!r}" for name in found.names if name not in schema.names),
        *(
            f"has {name!r} as {found.field(name).type}"
            for name in schema.names
            if name in found.names and found.field(name).type != schema.field(name).type
        ),
    ]
    raise UsageError(
        f"{uri} was written by another version of longreel: it "
        f"{', '.join(changed) or 'orders its columns otherwise'}; choose another --output"
    )
