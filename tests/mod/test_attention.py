"""Attention of a sequence's last tokens over all of it, as the engine calls it, beside arithmetic
in double precision that masks what comes later.

Guards against a way that is quicker and sees something else.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mod import attention
from mod.attention import causal_attention

SCALING = 0.3


def _plainly(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    tokens, length = query.shape[2], key.shape[2]
    share = query.shape[1] // key.shape[1]
    key, value = (x.double().repeat_interleave(share, 1) for x in (key, value))
    scores = query.double() @ key.transpose(-1, -2) * SCALING
    seen = torch.ones(tokens, length, dtype=torch.bool).tril(length - tokens)
    return scores.masked_fill(~seen, -torch.inf).softmax(-1) @ value


def _rows(heads: int, tokens: int, dtype: torch.dtype, seed: int) -> Tensor:
    """As they lie in pages: a token's heads side by side."""
    made = torch.randn(tokens, heads, 16, generator=torch.Generator().manual_seed(seed))
    return made.to(dtype).transpose(0, 1)[None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kv_heads", [1, 2, 8])
@pytest.mark.parametrize("tokens", [1, 2, 11, 70])
@pytest.mark.parametrize("past", [0, 1, 511, 512, 1300])
def test_it_sees_the_past_and_nothing_of_what_comes(
    past: int, tokens: int, kv_heads: int, dtype: torch.dtype
) -> None:
    """Guards single tokens, long pasts and the bound between the ways, whoever shares heads."""
    query = _rows(8, tokens, dtype, 0)
    key, value = (_rows(kv_heads, past + tokens, dtype, seed) for seed in (1, 2))
    with torch.no_grad():
        found = causal_attention(query, key, value, SCALING)
    assert (found.dtype, found.shape) == (dtype, query.shape)
    most = {torch.float32: 2e-6, torch.float64: 1e-12, torch.bfloat16: 2e-2}[dtype]
    assert (found.double() - _plainly(query, key, value)).abs().max() < most


@pytest.mark.parametrize("tokens", [1, 11])
@pytest.mark.parametrize("threads", [1, 3])
def test_it_sees_the_same_on_any_number_of_threads(threads: int, tokens: int) -> None:
    """Guards the two ways to divide heads that share their keys."""
    query = _rows(6, tokens, torch.float64, 0)
    key, value = (_rows(2, 600 + tokens, torch.float64, seed) for seed in (1, 2))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.no_grad():
            found = causal_attention(query, key, value, SCALING)
    finally:
        torch.set_num_threads(before)
    assert torch.allclose(found, _plainly(query, key, value), atol=1e-12)


def test_who_has_no_token_in_a_step_is_no_trouble() -> None:
    """Guards the process: what runs below divides by the number of tokens."""
    key, value = (_rows(2, 600, torch.float32, seed) for seed in (1, 2))
    with torch.no_grad():
        found = causal_attention(_rows(4, 0, torch.float32, 0), key, value, SCALING)
    assert found.shape == (1, 4, 0, 16)


def test_scores_that_are_far_apart_are_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against sums of exponentials that overflow where either part has all the weight."""
    monkeypatch.setattr(attention, "_LONG_PAST", 1)
    query = _rows(2, 4, torch.float32, 0)
    key, value = (_rows(2, 20, torch.float32, seed) for seed in (1, 2))
    for part in (slice(0, 16), slice(16, 20)):
        far = key.clone()
        far[:, :, part] *= 300
        with torch.no_grad():
            found = causal_attention(query, far, value, SCALING)
        assert torch.allclose(found.double(), _plainly(query, far, value), atol=1e-3)


def test_gradients_flow_where_they_are_wanted() -> None:
    """Guards training against a way that has none, or not those of what it gives."""
    rows = ((4, 3), (2, 700), (2, 700))
    given = [
        _rows(heads, n, torch.float64, seed).requires_grad_()
        for seed, (heads, n) in enumerate(rows)
    ]
    weight = _rows(4, 3, torch.float64, 9)
    query, key, value = given
    found, wanted = (
        torch.autograd.grad((seen * weight).sum(), given)
        for seen in (causal_attention(query, key, value, SCALING), _plainly(query, key, value))
    )
    for one, other in zip(found, wanted, strict=True):
        assert torch.allclose(one, other, atol=1e-9)
