"""Rows of a user's Parquet, CSV or JSONL file, local or in S3; one clear error for a bad one."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow.parquet as pq

from actors.objects import open_object, read_bytes
from actors.rows import UNREADABLE
from longreel.errors import UsageError

EXTENSIONS = frozenset({".csv", ".jsonl", ".parquet"})


def rows(
    file: str, required: Sequence[str], optional: Sequence[str] = ()
) -> Iterator[dict[str, Any]]:
    """The wanted columns of every row in order; None where a row or the file lacks one.

    Args:
        file: its extension says what it is.

    Raises:
        StorageError: the file cannot be read.
        UsageError: it lacks a required column, or is not what its extension says.
    """
    wanted = [*required, *optional]
    extension = file[file.rfind(".") :].lower()
    if extension == ".parquet":
        return _parquet(file, required, wanted)
    if extension == ".csv":
        return _csv(file, required, wanted)
    return _jsonl(file, required, wanted)


def text_in(file: str, column: str, value: object) -> str:
    """``value`` as stripped text, empty for None.

    Raises:
        UsageError: it is something else.
    """
    if value is not None and not isinstance(value, str):
        raise UsageError(f"the column {column!r} of {file} holds {type(value).__name__}, not text")
    return (value or "").strip()


def _parquet(file: str, required: Sequence[str], wanted: list[str]) -> Iterator[dict[str, Any]]:
    with open_object(file) as reader:
        try:
            parquet = pq.ParquetFile(reader)
            names = parquet.schema_arrow.names
            _require(file, required, names)
            for batch in parquet.iter_batches(columns=[n for n in wanted if n in names]):
                for row in batch.to_pylist():
                    yield {name: row.get(name) for name in wanted}
        except UNREADABLE as error:
            reason = " ".join(str(error).split())
            raise UsageError(f"{file} is not a readable Parquet file: {reason}") from None


def _csv(file: str, required: Sequence[str], wanted: list[str]) -> Iterator[dict[str, Any]]:
    try:
        lines = csv.reader(io.StringIO(_text(file), newline=""), strict=True)
        names = [name.strip() for name in next(lines, [])]
        _require(file, required, names)
        places = {name: names.index(name) for name in wanted if name in names}
        for row in lines:
            if row:
                found = {n: row[at].strip() for n, at in places.items() if at < len(row)}
                yield {name: found.get(name) for name in wanted}
    except csv.Error as error:
        raise UsageError(f"{file} is not a readable CSV file: {error}") from None


def _jsonl(file: str, required: Sequence[str], wanted: list[str]) -> Iterator[dict[str, Any]]:
    # Not splitlines: JSON strings may hold the other characters that it splits at.
    for number, line in enumerate(_text(file).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError:
            raise UsageError(f"line {number} of {file} is not JSON") from None
        if not isinstance(entry, dict):
            raise UsageError(f"line {number} of {file} is not a JSON object")
        _require(f"line {number} of {file}", required, list(entry))
        yield {name: entry.get(name) for name in wanted}


def _text(file: str) -> str:
    try:
        return read_bytes(file).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{file} is not UTF-8 text") from None


def _require(where: str, required: Sequence[str], names: Sequence[str]) -> None:
    for column in required:
        if column not in names:
            there = ", ".join(names) or "none"
            raise UsageError(f"{where} has no column {column!r}; its columns are: {there}")
