"""Blocks of a stream that left their session's window, outside the pages."""

from __future__ import annotations

import uuid
import weakref
from collections.abc import Sequence
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from mod.places import Cursor


class Block:
    """Keys and values of one block, in host memory or in a file; never changed.

    Forks share it; a file goes when nobody holds the block any more.

    Args:
        ids: token ids, ``FRAME`` where a frame lies.
        cursor: where its first entry lay when the block left.
        rows: per layer class (2, layers, rows, heads, head_dim), keys as they lay in the cache.
        means: per layer class (layers, heads, head_dim) float32: the mean key of each layer with
            positions taken out, by which questions find the block.
        folder: of the file; None keeps the rows in memory.
    """

    def __init__(
        self,
        ids: Sequence[int],
        cursor: Cursor,
        rows: Sequence[Tensor],
        means: Sequence[Tensor],
        folder: str | None = None,
    ) -> None:
        self.ids, self.cursor, self.means = list(ids), cursor, list(means)
        #: Rows in each layer of a class.
        self.lengths = [part.shape[2] for part in rows]
        self.n_bytes = sum(part.numel() * part.element_size() for part in rows)
        self._rows: list[Tensor] | None = list(rows)
        if folder is not None:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self._file = Path(folder) / f"{uuid.uuid4().hex}.safetensors"
            save_file({str(c): part.contiguous() for c, part in enumerate(rows)}, self._file)
            weakref.finalize(self, self._file.unlink, missing_ok=True)
            self._rows = None

    def layer(self, c: int, index: int) -> Tensor:
        """Keys and values (2, rows, heads, head_dim) of the ``index``-th layer of class ``c``."""
        if self._rows is not None:
            return self._rows[c][:, index]
        with safe_open(self._file, framework="pt") as file:
            part: Tensor = file.get_slice(str(c))[:, index]
        return part

    def rows(self) -> list[Tensor]:
        """All rows, as they were given."""
        if self._rows is not None:
            return self._rows
        with safe_open(self._file, framework="pt") as file:
            return [file.get_tensor(str(c)) for c in range(len(self.lengths))]
