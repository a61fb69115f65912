"""Manifests: Parquet, CSV or JSONL files with a ``uri`` column, local or in S3."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.tables import EXTENSIONS as MANIFEST_EXTENSIONS
from pipelines.tables import rows, text_in

__all__ = ["COLUMN", "MANIFEST_EXTENSIONS", "manifest_uris"]

COLUMN = "uri"


def manifest_uris(manifest: str) -> Iterator[str]:
    """The ``uri`` of every entry in order, stripped; empty where an entry has none.

    Raises:
        StorageError: the manifest cannot be read.
        UsageError: it has no such column, or is not what its extension says.
    """
    for row in rows(manifest, [COLUMN]):
        yield text_in(manifest, COLUMN, row[COLUMN])
