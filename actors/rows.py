"""Reading back what jobs wrote: rows of one folder of Parquet files, local or in S3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from actors.objects import arrow_filesystem, list_objects
from longreel.errors import StorageError, UsageError


def read_table(
    folder: str,
    schema: pa.Schema,
    *,
    columns: Sequence[str] | None = None,
    where: pc.Expression | None = None,
) -> pa.Table:
    """All rows of the Parquet files in ``folder``; empty when there is no such folder.

    Args:
        columns: only these; None means all.
        where: only rows for which this holds.

    Raises:
        UsageError: a file has other columns, as another version writes them; read as these they
            would come back with holes.
    """
    files = parquet_files(folder)
    if not files:
        return schema.empty_table().select(columns or schema.names)
    filesystem, _ = arrow_filesystem(folder)
    paths = [arrow_filesystem(file)[1] for file in files]
    dataset = ds.dataset(paths, schema=schema, filesystem=filesystem, format="parquet")
    for fragment in dataset.get_fragments():
        _require(fragment.physical_schema, schema, fragment.path)
    return dataset.to_table(columns=columns, filter=where)


def read_rows(folder: str, schema: pa.Schema, **options: Any) -> list[dict[str, Any]]:
    """``read_table`` as dictionaries."""
    rows: list[dict[str, Any]] = read_table(folder, schema, **options).to_pylist()
    return rows


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
    for file in parquet_files(folder)[-1:]:
        filesystem, path = arrow_filesystem(file)
        _require(pq.read_schema(path, filesystem=filesystem), schema, path)


def _require(found: pa.Schema, schema: pa.Schema, path: str) -> None:
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
        f"{path} was written by another version of longreel: it "
        f"{', '.join(changed) or 'orders its columns otherwise'}; choose another --output"
    )
