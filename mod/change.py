"""How much each vision token of a frame differs from the same place of the frame before."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def change(tokens: Tensor, before: Tensor) -> Tensor:
    """One minus the cosine similarity of each token to the one before it, 0 where nothing moved.

    Args:
        tokens: (frames, tokens, D), as the connector gives them.
        before: of the frame before each, same shape; a stream's first frame stands for its own.

    Returns:
        (frames, tokens) float32 in 0-2.

    Source: TimeChat-Online (arXiv 2504.17343), which drops what hardly differs.
    """
    return 1.0 - F.cosine_similarity(tokens.float(), before.float(), dim=-1)


def within(tokens: Tensor, frame_starts: Tensor, lengths: list[int]) -> Tensor:
    """``change`` where the sequences are whole.

    Args:
        tokens: (frames, tokens, D) of all sequences, in order.
        frame_starts: (frames,) index of each frame's first token among all tokens.
        lengths: tokens of each sequence.
    """
    ends = torch.tensor(lengths, device=frame_starts.device).cumsum(0)
    sequence = torch.bucketize(frame_starts, ends, right=True)
    goes_on = torch.zeros_like(sequence, dtype=torch.bool)
    goes_on[1:] = sequence[1:] == sequence[:-1]
    before = torch.where(goes_on[:, None, None], tokens.roll(1, 0), tokens)
    return change(tokens, before)
