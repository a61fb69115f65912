"""Rows read back from files that are damaged, or that the store does not give."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.objects import RangedReader
from actors.rows import read_rows
from longreel.errors import LongreelError, StorageError

SCHEMA = pa.schema([("uri", pa.string())])


def without_footer(data: bytes) -> bytes:
    """The footer is there by its length, and of zeros."""
    length = int.from_bytes(data[-8:-4], "little")
    return data[: -8 - length] + bytes(length) + data[-8:]


def with_odd_name(data: bytes) -> bytes:
    """A column's name is no text."""
    return data.replace(b"uri", b"\xa4ri")


@pytest.mark.parametrize("damaged", [without_footer, with_odd_name, lambda data: data[:20]])
def test_a_damaged_file_is_told_in_one_line(
    tmp_path: Path, damaged: Callable[[bytes], bytes]
) -> None:
    """Guards against an error of pyarrow's that nobody catches and that names no file."""
    file = tmp_path / "x.parquet"
    # Without Arrow's own copy of the schema, where the name stands once more.
    pq.write_table(pa.table({"uri": ["a"]}), file, store_schema=False)
    file.write_bytes(damaged(file.read_bytes()))
    with pytest.raises(LongreelError, match=str(file)) as told:
        read_rows(str(tmp_path), SCHEMA)
    assert "\n" not in str(told.value)


def test_what_the_store_says_amid_a_file_is_told_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against a store that fails for a moment and a file that is called damaged for it."""
    pq.write_table(pa.table({"uri": ["a"]}), tmp_path / "x.parquet")

    def fails(*_: Any) -> bytes:
        raise StorageError("Unreachable", "no answer")

    monkeypatch.setattr(RangedReader, "read", fails)
    with pytest.raises(StorageError, match="no answer"):
        read_rows(str(tmp_path), SCHEMA)
