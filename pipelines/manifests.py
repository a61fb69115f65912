"""Manifests: Parquet, CSV or JSONL files with a ``uri`` column, local or in S3."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from actors.objects import open_object, read_bytes
from longreel.errors import UsageError

MANIFEST_EXTENSIONS = frozenset({".csv", ".jsonl", ".parquet"})
COLUMN = "uri"


def manifest_uris(manifest: str) -> Iterator[str]:
    """The ``uri`` of every entry in order, stripped; empty where an entry has none.

    Raises:
        StorageError: the manifest cannot be read.
        UsageError: it has no such column, or is not what its extension says.
    """
    extension = manifest[manifest.rfind(".") :].lower()
    if extension == ".parquet":
        return _parquet(manifest)
    text = _text(manifest)
    return _csv(manifest, text) if extension == ".csv" else _jsonl(manifest, text)


def _parquet(manifest: str) -> Iterator[str]:
    with open_object(manifest) as reader:
        try:
            file = pq.ParquetFile(reader)
            _require_column(manifest, file.schema_arrow.names)
            for batch in file.iter_batches(columns=[COLUMN]):
                for value in batch.column(0).to_pylist():
                    yield _clean(manifest, value)
        except pa.ArrowException as error:
            reason = " ".join(str(error).split())
            raise UsageError(f"{manifest} is not a readable Parquet file: {reason}") from None


def _csv(manifest: str, text: str) -> Iterator[str]:
    try:
        rows = csv.reader(io.StringIO(text, newline=""), strict=True)
        names = [name.strip() for name in next(rows, [])]
        _require_column(manifest, names)
        at = names.index(COLUMN)
        for row in rows:
            if row:
                yield row[at].strip() if at < len(row) else ""
    except csv.Error as error:
        raise UsageError(f"{manifest} is not a readable CSV file: {error}") from None


def _jsonl(manifest: str, text: str) -> Iterator[str]:
    # Not splitlines: JSON strings may hold the other characters that it splits at.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError:
            raise UsageError(f"line {number} of {manifest} is not JSON") from None
        if not isinstance(entry, dict):
            raise UsageError(f"line {number} of {manifest} is not a JSON object")
        _require_column(manifest, list(entry))
        yield _clean(manifest, entry[COLUMN])


def _text(manifest: str) -> str:
    try:
        return read_bytes(manifest).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{manifest} is not UTF-8 text") from None


def _require_column(manifest: str, names: list[str]) -> None:
    if COLUMN not in names:
        there = ", ".join(names) or "none"
        raise UsageError(f"{manifest} has no column {COLUMN!r}; its columns are: {there}")


def _clean(manifest: str, value: object) -> str:
    if value is not None and not isinstance(value, str):
        raise UsageError(
            f"the column {COLUMN!r} of {manifest} holds {type(value).__name__}, not text"
        )
    return (value or "").strip()
