"""Pages of keys and values, counted by reference, for layers that hold the same tokens."""

from __future__ import annotations

import torch

#: The attention kernel reads pages of multiples of this many tokens.
PAGE_MULTIPLE = 64


class OutOfPagesError(Exception):
    """No page is free."""


class PagePool:
    """Storage for the keys and values of one class of layers: those that keep equally many tokens.

    A page holds ``page_size`` tokens for every layer of the class, so that one table of pages
    serves them all. Pages are shared by reference count; a page that is to be written and is
    shared is copied first.

    Args:
        n_layers: layers of the class.
        n_pages: how many pages there are.
        heads, head_dim: of keys and values.
    """

    def __init__(
        self,
        n_layers: int,
        n_pages: int,
        page_size: int,
        heads: int,
        head_dim: int,
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        shape = (n_layers, n_pages * page_size, heads, head_dim)
        self.keys = torch.empty(shape, dtype=dtype, device=device)
        self.values = torch.empty(shape, dtype=dtype, device=device)
        self.page_size = page_size
        self._references = [0] * n_pages
        self._free = set(range(n_pages))

    @property
    def page_bytes(self) -> int:
        """Bytes of one page, keys and values of all layers."""
        layers, _, heads, dim = self.keys.shape
        return 2 * layers * self.page_size * heads * dim * self.keys.element_size()

    @property
    def n_free(self) -> int:
        """Pages that nobody holds."""
        return len(self._free)

    @property
    def n_used(self) -> int:
        """Pages that somebody holds, shared ones counted once."""
        return len(self._references) - len(self._free)

    def take(self, after: int | None = None) -> int:
        """A free page with one reference; the one after ``after`` if that is free.

        A table of consecutive pages is read without a copy. Where a stream begins, the page is
        taken from the middle of the longest free stretch, so that streams have room to grow.

        Raises:
            OutOfPagesError: all pages are held.
        """
        if not self._free:
            raise OutOfPagesError
        page = after + 1 if after is not None and after + 1 in self._free else self._roomy()
        self._free.remove(page)
        self._references[page] = 1
        return page

    def retain(self, pages: list[int]) -> None:
        """Count one more holder of each page."""
        for page in pages:
            self._references[page] += 1

    def release(self, pages: list[int]) -> None:
        """Count one holder less; what nobody holds is free."""
        for page in pages:
            self._references[page] -= 1
            if not self._references[page]:
                self._free.add(page)

    def shared(self, page: int) -> bool:
        """Whether more than one table holds the page."""
        return self._references[page] > 1

    def copy(self, source: int, target: int) -> None:
        """Copy a page's keys and values, all layers."""
        a, b, n = source * self.page_size, target * self.page_size, self.page_size
        self.keys[:, b : b + n] = self.keys[:, a : a + n]
        self.values[:, b : b + n] = self.values[:, a : a + n]

    def _roomy(self) -> int:
        """The middle of the longest stretch of free pages."""
        best = start = length = longest = 0
        previous = -2
        for page in sorted(self._free):
            start, length = (start, length + 1) if page == previous + 1 else (page, 1)
            previous = page
            if length > longest:
                longest, best = length, start
        # Of a stretch at the very beginning nothing lies before that could grow into it.
        return best if best == 0 or longest == 1 else best + longest // 2
