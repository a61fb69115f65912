"""What a question looks back at: blocks outside the pages, picked layer by layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mod.engine.blocks import Block
from mod.engine.cache import Memory, PagedCache, rows_of
from mod.engine.log import is_said
from mod.engine.rotation import Rotation
from mod.places import Cursor, Places


def best_blocks(queries: Tensor, means: Tensor, count: int) -> list[int]:
    """The blocks whose mean keys agree best with a question, in order of time.

    Args:
        queries: (heads, tokens, head_dim), positions taken out; heads a multiple of the keys'.
        means: (blocks, kv_heads, head_dim), positions taken out.

    The mean attention score that a block would get if its keys were all their mean.
    """
    _, heads, dim = means.shape
    mean = queries.float().mean(1).view(heads, -1, dim).sum(1)
    scores = torch.einsum("bhd,hd->b", means, mean)
    best = torch.sort(scores, descending=True, stable=True).indices[:count]
    return sorted(best.tolist())


class Recall:
    """The cache that one turn reads: retrieved rows before the session's own.

    Rows are rotated to lie right before the session's first position, at negative ones, each block
    as a stream of its own: only differences of positions count, and nothing in the session's cache
    needs to move. They lie in pages of their own, so the session's cache holds nothing but its
    stream.

    Args:
        main: the session's cache; what is fed is appended there.
        blocks: all that left the window, the oldest first.
        count: how many blocks each layer looks back at.
        words: tokens of text that left and are still kept by the session: they are not shown twice.
        question: (axes, tokens) positions of the question, whose queries are the last.
        picked: per layer, numbers of blocks that were picked before; None to pick by queries.
    """

    def __init__(
        self,
        memory: Memory,
        rotation: Rotation,
        main: PagedCache,
        blocks: Sequence[Block],
        *,
        count: int,
        words: int,
        places: Places,
        question: Tensor | None = None,
        picked: list[list[int]] | None = None,
    ) -> None:
        self._memory, self._rotation, self.main = memory, rotation, main
        self._blocks, self._count, self._question = blocks, count, question
        self._places = places
        self._lay: dict[int, tuple[Tensor, int]] = {}
        self.aside = PagedCache(memory)
        self._shown = _shown(blocks, words)
        self._means = [
            torch.stack([block.means[c] for block in blocks]) for c in range(len(memory.pools))
        ]
        self._picking = picked is None
        self.picked: list[list[int]] = picked or [[] for _ in memory.place]
        if picked is not None:
            try:
                for layer in memory.place:
                    self._fetch(layer)
            except BaseException:
                self.aside.release()
                raise

    def look(self, layer: int, queries: Tensor) -> None:
        """Pick blocks by a question's ``queries`` (heads, tokens, head_dim), and fetch them."""
        if not self._picking:
            return
        assert self._question is not None
        asked = queries.transpose(0, 1)[-self._question.shape[1] :]
        plain = self._rotation.turn(asked, -self._question).transpose(0, 1)
        c, index = self._memory.place[layer]
        self.picked[layer] = best_blocks(plain.cpu(), self._means[c][:, index], self._count)
        self._fetch(layer)

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add keys and values (heads, tokens, head_dim) to the session's cache.

        Returns:
            Retrieved keys and values, then the session's, (heads, length, head_dim).
        """
        self.main.append(layer, keys, values)
        return self.read(layer)

    def read(self, layer: int) -> tuple[Tensor, Tensor]:
        """Retrieved keys and values, then the session's, (heads, length, head_dim)."""
        mine, theirs = self.main.read(layer), self.aside.read(layer)
        return torch.cat([theirs[0], mine[0]], dim=1), torch.cat([theirs[1], mine[1]], dim=1)

    def settled(self) -> None:
        """The question is committed: what was picked stays for the whole turn."""
        self._picking = False

    def undo(self) -> None:
        """The step failed: what it picked is forgotten."""
        if self._picking:
            self.release()

    def release(self) -> None:
        """Give the pages of retrieved rows back."""
        self.aside.release()

    def _fetch(self, layer: int) -> None:
        c, index = self._memory.place[layer]
        kind = self._memory.classes[c]
        chosen = [self._blocks[number] for number in self.picked[layer]]
        laid = [self._laid(number) for number in self.picked[layer]]
        place = -sum(extent for _, extent in laid)
        keys, values = [], []
        for number, block, (moves, extent) in zip(self.picked[layer], chosen, laid, strict=True):
            part = block.layer(c, index)
            counts = rows_of(block.ids, kind)
            show = torch.repeat_interleave(self._shown[number], counts)
            part = part[:, show].to(self._memory.pools[c].keys.device)
            by = torch.repeat_interleave(moves + place, counts, dim=1)[:, show]
            keys.append(self._rotation.turn(part[0], by))
            values.append(part[1])
            place += extent
        if keys:
            both = torch.cat(keys).transpose(0, 1), torch.cat(values).transpose(0, 1)
            self.aside.append(layer, *both)

    def _laid(self, number: int) -> tuple[Tensor, int]:
        """(axes, entries) by how much each entry of a block moves when it comes to lie at 0, and
        how far it reaches; the same for every layer.
        """
        if number not in self._lay:
            block = self._blocks[number]
            were = torch.tensor(self._places.bases(block.ids, block.cursor), dtype=torch.long)
            will = torch.tensor(self._places.bases(block.ids, Cursor()), dtype=torch.long)
            self._lay[number] = (will - were).T, self._places.after(Cursor(), block.ids).at
        return self._lay[number]


def pages_for(memory: Memory, lengths: Sequence[Sequence[int]], count: int) -> list[int]:
    """Per class of layers, the pages that ``count`` blocks of such ``lengths`` take at most."""
    pages = []
    for c, pool in enumerate(memory.pools):
        longest = sorted((block[c] for block in lengths), reverse=True)[:count]
        pages.append(-(-sum(longest) // pool.page_size))
    return pages


def _shown(blocks: Sequence[Block], words: int) -> list[Tensor]:
    """Per block, (entries,) whether an entry is shown: not the last ``words`` of their text."""
    shown = []
    for block in reversed(blocks):
        show = [True] * len(block.ids)
        for entry in reversed(range(len(block.ids))):
            if words and is_said(block.ids[entry]):
                show[entry] = False
                words -= 1
        shown.append(torch.tensor(show))
    return shown[::-1]
