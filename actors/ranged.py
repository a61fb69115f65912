"""A seekable file over ranged fetches: what a demuxer needs to read a part of a large object."""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

#: Bytes of the unit that is cached, and of the first fetch after a jump.
GRANULE_BYTES = 256 * 1024
#: Each further fetch of the same sequential run asks for this many times more.
GROWTH = 4
#: The cache holds this many full buffers, so that a demuxer that alternates between the index
#: at the end of a file, the audio and the video keeps all three.
CACHED_BUFFERS = 4


class RangedReader(io.RawIOBase):
    """A read-only binary file of ``size`` bytes over ``fetch(start, length) -> bytes``.

    Fetches start small after a jump and grow along a sequential run up to ``buffer_bytes``, so
    reading a segment costs about its share of the object while a long run costs few requests.
    ``buffer_bytes=0`` keeps nothing: each read is one fetch (for local files, which the kernel
    caches). ``bytes_read`` counts the bytes fetched. ``read`` returns fewer bytes than asked for
    only at the end. For one thread at a time; errors are those of ``fetch``.
    """

    def __init__(
        self,
        size: int,
        fetch: Callable[[int, int], bytes],
        *,
        name: str = "",
        buffer_bytes: int = 4 * 1024 * 1024,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        super().__init__()
        self.size = size
        self.name = name
        self.bytes_read = 0
        self._fetch = fetch
        self._on_close = on_close
        self._position = 0
        # Rounded up, so that a tiny buffer still holds one granule.
        self._longest_run = -(-buffer_bytes // GRANULE_BYTES)
        # granule index -> its bytes and the length, in granules, of the run that fetched it
        self._cache: OrderedDict[int, tuple[bytes, int]] = OrderedDict()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        self._check_open()
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._check_open()
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}.get(whence)
        if base is None:
            raise ValueError(f"whence is {whence}, not 0, 1 or 2")
        if base + offset < 0:
            raise ValueError(f"seek to {base + offset}, before the start")
        self._position = base + offset
        return self._position

    def read(self, size: int | None = -1, /) -> bytes:
        """The next ``size`` bytes, or all that remain for a negative size or None."""
        self._check_open()
        remaining = max(0, self.size - self._position)
        wanted = remaining if size is None or size < 0 else min(size, remaining)
        if wanted == 0:
            return b""
        if self._longest_run == 0:
            data = self._counted_fetch(self._position, wanted)
        else:
            data = self._read_cached(self._position, wanted)
        self._position += len(data)
        return data

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        return self.read(-1)

    def close(self) -> None:
        if not self.closed:
            self._cache.clear()
            if self._on_close is not None:
                self._on_close()
        super().close()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError(f"{self.name or 'file'} is closed")

    def _counted_fetch(self, start: int, length: int) -> bytes:
        data = self._fetch(start, length)
        self.bytes_read += len(data)
        return data

    def _read_cached(self, start: int, length: int) -> bytes:
        end = start + length
        parts: list[bytes] = []
        position = start
        while position < end:
            index = position // GRANULE_BYTES
            data = self._granule(index, last=(end - 1) // GRANULE_BYTES)
            offset = position - index * GRANULE_BYTES
            part = data[offset : offset + end - position]
            if not part:
                break
            parts.append(part)
            position += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _granule(self, index: int, last: int) -> bytes:
        """The bytes of granule ``index``; a miss fetches a run that may reach past ``last``."""
        if (hit := self._cache.get(index)) is not None:
            self._cache.move_to_end(index)
            return hit[0]
        before = self._cache.get(index - 1)
        run = before[1] * GROWTH if before is not None else 1
        run = min(max(run, last - index + 1), self._longest_run)
        run = min(run, (self.size - 1) // GRANULE_BYTES - index + 1)
        while run > 1 and any(index + i in self._cache for i in range(1, run)):
            run -= 1
        start = index * GRANULE_BYTES
        block = self._counted_fetch(start, min(run * GRANULE_BYTES, self.size - start))
        for i in range(run):
            piece = block[i * GRANULE_BYTES : (i + 1) * GRANULE_BYTES]
            self._cache[index + i] = (piece, run)
        while len(self._cache) > self._longest_run * CACHED_BUFFERS:
            self._cache.popitem(last=False)
        return self._cache[index][0]
