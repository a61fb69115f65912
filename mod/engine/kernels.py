"""Causal attention over pages as one Triton kernel: ragged queries, grouped heads, block tables.

A program holds the queries of one key-value head that follow each other in one sequence, and walks
its pages with a running softmax. Where a step has too few of them to fill the card, keys are split
among several programs, and a second kernel brings their parts together (flash decoding).

Source: the running softmax of FlashAttention-2 (arXiv 2307.08691), pages of PagedAttention
(arXiv 2309.06180).
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from mod.engine.pages import PAGE_MULTIPLE

#: Keys of one step of a program's walk; pages are multiples of it.
BLOCK_N = PAGE_MULTIPLE
#: Programs for each multiprocessor of the card, so that none of them is left alone with a long one.
_WAVES = 2
#: Fewest keys that are worth a program of their own.
_LEAST_SPLIT = 512


# Numbers that change from step to step are compiled in nowhere: a new one would stop a step for
# seconds.
@triton.jit(
    do_not_specialize=["pages_stride", "blocks_per_sequence", "n_tokens", "n_splits", "scale_log2"]
)
def _walk(
    query,
    keys,
    values,
    starts,
    used,
    pages,
    out,
    parts,
    weights,
    scale_log2,
    pages_stride,
    blocks_per_sequence,
    n_tokens,
    n_splits,
    PAGE: tl.constexpr,
    GROUP: tl.constexpr,
    KV_HEADS: tl.constexpr,
    DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    SPLIT: tl.constexpr,
):
    sequence = tl.program_id(0) // blocks_per_sequence
    block = tl.program_id(0) % blocks_per_sequence
    head = tl.program_id(1)
    split = tl.program_id(2)
    first = tl.load(starts + sequence)
    new = tl.load(starts + sequence + 1) - first
    if block * BLOCK_M >= new * GROUP:
        return
    total = tl.load(used + sequence)
    row = block * BLOCK_M + tl.arange(0, BLOCK_M)
    token = row // GROUP
    heads = head * GROUP + row % GROUP
    d = tl.arange(0, WIDTH)
    live = row < new * GROUP
    wanted = live[:, None] & (d < DIM)[None, :]
    # Places of rows among all (token, head) pairs of the step.
    place = (first + token).to(tl.int64) * (KV_HEADS * GROUP) + heads
    q = tl.load(query + place[:, None] * DIM + d[None, :], mask=wanted, other=0.0)
    sees = total - new + token
    last = total - new + tl.minimum((block * BLOCK_M + BLOCK_M - 1) // GROUP, new - 1) + 1
    share = tl.cdiv(tl.cdiv(last, n_splits), BLOCK_N) * BLOCK_N
    begin = split * share
    end = tl.minimum(begin + share, last)
    most = tl.full([BLOCK_M], -float("inf"), tl.float32)
    weight = tl.zeros([BLOCK_M], tl.float32)
    sums = tl.zeros([BLOCK_M, WIDTH], tl.float32)
    for start in range(begin, end, BLOCK_N):
        page = tl.load(pages + sequence * pages_stride + start // PAGE).to(tl.int64)
        n = start + tl.arange(0, BLOCK_N)
        slot = page * PAGE + start % PAGE + tl.arange(0, BLOCK_N)
        where = (slot[:, None] * KV_HEADS + head) * DIM + d[None, :]
        held = (n < total)[:, None] & (d < DIM)[None, :]
        k = tl.load(keys + where, mask=held, other=0.0)
        score = tl.dot(q, tl.trans(k)) * scale_log2
        score = tl.where(n[None, :] <= sees[:, None], score, -float("inf"))
        higher = tl.maximum(most, tl.max(score, 1))
        # A row that sees nothing of this part yet stays at minus infinity.
        base = tl.where(higher == -float("inf"), 0.0, higher)
        p = tl.exp2(score - base[:, None])
        fade = tl.exp2(most - base)
        v = tl.load(values + where, mask=held, other=0.0)
        sums = sums * fade[:, None] + tl.dot(p.to(v.dtype), v)
        weight = weight * fade + tl.sum(p, 1)
        most = higher
    if not SPLIT:
        done = sums / weight[:, None]
        tl.store(
            out + place[:, None] * DIM + d[None, :], done.to(out.dtype.element_ty), mask=wanted
        )
    else:
        at = split.to(tl.int64) * n_tokens * (KV_HEADS * GROUP) + place
        tl.store(parts + at[:, None] * DIM + d[None, :], sums, mask=wanted)
        tl.store(weights + at * 2, most, mask=live)
        tl.store(weights + at * 2 + 1, weight, mask=live)


@triton.jit(do_not_specialize=["n_rows", "n_splits"])
def _join(parts, weights, out, n_rows, n_splits, DIM: tl.constexpr, WIDTH: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, WIDTH)
    most = tl.full([], -float("inf"), tl.float32)
    weight = tl.zeros([], tl.float32)
    sums = tl.zeros([WIDTH], tl.float32)
    for split in range(n_splits):
        at = split * n_rows + row
        theirs = tl.load(weights + at * 2)
        counted = tl.load(weights + at * 2 + 1)
        part = tl.load(parts + at * DIM + d, mask=d < DIM, other=0.0)
        higher = tl.maximum(most, theirs)
        base = tl.where(higher == -float("inf"), 0.0, higher)
        mine, others = tl.exp2(most - base), tl.exp2(theirs - base)
        sums = sums * mine + part * others
        weight = weight * mine + counted * others
        most = higher
    tl.store(out + row * DIM + d, (sums / weight).to(out.dtype.element_ty), mask=d < DIM)


def splits_for(programs: int, longest: int, multiprocessors: int) -> int:
    """Among how many programs keys are split: a power of two, 1 where the card is full anyway."""
    wanted = min(_WAVES * multiprocessors // max(1, programs), longest // _LEAST_SPLIT)
    return 1 << max(0, wanted.bit_length() - 1)


def paged_attention(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    starts: Tensor,
    used: Tensor,
    pages: Tensor,
    *,
    max_new: int,
    max_used: int,
    scaling: float,
    splits: int | None = None,
) -> Tensor:
    """Attention of each sequence's last tokens over all of its tokens.

    Args:
        query: (tokens, heads, head_dim), contiguous; sequences one after the other.
        keys, values: (pages, page_size, kv_heads, head_dim), contiguous.
        starts: (sequences + 1,) int32, where each sequence's new tokens start.
        used: (sequences,) int32, tokens of each sequence, new ones included.
        pages: (sequences, width) int32, the pages of each.
        max_new, max_used: bounds of new tokens and of tokens of a sequence; host numbers.
        splits: among how many programs keys are split; None decides by the card.

    Returns:
        (tokens, heads, head_dim).

    Raises:
        ValueError: a page is no multiple of ``PAGE_MULTIPLE`` tokens.
    """
    n_tokens, n_heads, dim = query.shape
    page_size, kv_heads = keys.shape[1:3]
    if page_size % BLOCK_N:
        raise ValueError(f"pages of {page_size} tokens are no multiple of {BLOCK_N}")
    group = n_heads // kv_heads
    out = torch.empty_like(query)
    n_sequences = len(used)
    if not n_tokens or not n_sequences:
        return out
    block_m = 16 if max_new * group <= 16 else 64
    blocks = -(-max_new * group // block_m)
    if splits is None:
        sms = torch.cuda.get_device_properties(query.device).multi_processor_count
        splits = splits_for(n_sequences * blocks * kv_heads, max_used, sms)
    width = max(16, triton.next_power_of_2(dim))
    parts = weights = out
    if splits > 1:
        parts = query.new_empty((splits, n_tokens, n_heads, dim), dtype=torch.float32)
        weights = query.new_empty((splits, n_tokens, n_heads, 2), dtype=torch.float32)
    _walk[(n_sequences * blocks, kv_heads, splits)](
        query,
        keys,
        values,
        starts,
        used,
        pages,
        out,
        parts,
        weights,
        scaling * math.log2(math.e),
        pages.stride(0),
        blocks,
        n_tokens,
        splits,
        PAGE=page_size,
        GROUP=group,
        KV_HEADS=kv_heads,
        DIM=dim,
        WIDTH=width,
        BLOCK_M=block_m,
        BLOCK_N=BLOCK_N,
        SPLIT=splits > 1,
        num_warps=4,
        num_stages=3,
    )
    if splits > 1:
        n_rows = n_tokens * n_heads
        _join[(n_rows,)](parts, weights, out, n_rows, splits, DIM=dim, WIDTH=width, num_warps=1)
    return out


def warm_up(keys: Tensor, values: Tensor, n_heads: int) -> None:
    """Compile every form of the kernel for pages like these, so that no session waits for it."""
    for n in (1, BLOCK_N):
        query = keys.new_zeros((n, n_heads, keys.shape[3]))
        starts, used, pages = (
            torch.tensor(v, dtype=torch.int32, device=keys.device) for v in ([0, n], [n], [[0]])
        )
        for splits in (1, 2):
            paged_attention(
                query,
                keys,
                values,
                starts,
                used,
                pages,
                max_new=n,
                max_used=n,
                scaling=1.0,
                splits=splits,
            )
