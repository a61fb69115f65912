"""A seekable file over ranged fetches: what a demuxer needs to read a part of a large object."""

from __future__ import annotations

import io
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING

from actors.granules import GRANULE_BYTES, Granules

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

#: Each further fetch of the same sequential run asks for this many times more.
GROWTH = 4
#: A reader with a cache of its own keeps this many full buffers, so that a demuxer that alternates
#: between the index at the end of a file, the audio and the video keeps all three.
CACHED_BUFFERS = 4


class RangedReader(io.RawIOBase):
    """A read-only binary file of ``size`` bytes over ``fetch(start, length) -> bytes``.

    Fetches start small after a jump and grow along a sequential run up to ``buffer_bytes``, so
    reading a segment costs about its share of the object while a long run costs few requests.
    ``bytes_read`` counts the bytes fetched. ``read`` returns fewer bytes than asked for only at
    the end. For one thread at a time; errors are those of ``fetch``.

    Args:
        buffer_bytes: of the longest fetch. 0 keeps nothing: each read is one fetch (for local
            files, which the kernel caches).
        granules: where pieces are kept, by ``version``; a cache of its own without.
    """

    def __init__(
        self,
        size: int,
        fetch: Callable[[int, int], bytes],
        *,
        name: str = "",
        buffer_bytes: int = 4 * 1024 * 1024,
        on_close: Callable[[], None] | None = None,
        granules: Granules | None = None,
        version: Hashable = None,
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
        self._granules = granules or Granules(CACHED_BUFFERS * buffer_bytes)
        self._version = version
        self._needed_until: int | None = None

    def need_until(self, position: int) -> None:
        """Say how far, about, the present run will be read: one fetch goes there, and not past it.

        Beyond it fetches start small again.
        """
        self._needed_until = position

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        self._check_open()
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """See ``io.RawIOBase``.

        Raises:
            ValueError: the place lies before the start, or ``whence`` is unknown.
        """
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
        if not self.closed and self._on_close is not None:
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
        if (hit := self._granules.get((self._version, index))) is not None:
            return hit[0]
        start = index * GRANULE_BYTES
        run = min(max(self._run(index), last - index + 1), self._longest_run)
        run = min(run, (self.size - 1) // GRANULE_BYTES - index + 1)
        # Up to what is there already.
        run = next((i for i in range(1, run) if (self._version, index + i) in self._granules), run)
        block = self._counted_fetch(start, min(run * GRANULE_BYTES, self.size - start))
        self._granules.put(self._version, index, block)
        return block[:GRANULE_BYTES]

    def _run(self, index: int) -> int:
        """How many granules to fetch from one that is missing on."""
        if self._needed_until is not None:
            missing = self._needed_until // GRANULE_BYTES - index + 1
            if missing > 0:
                return missing
            # More was needed after all.
            self._needed_until = None
            return 1
        before = self._granules.get((self._version, index - 1))
        return before[1] * GROWTH if before is not None else 1
