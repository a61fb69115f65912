"""The network: dense equality, streaming equality, skipped tokens, saving and loading."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mod.attention import NAME
from mod.cache import RaggedKVCache
from mod.config import VideoLLMMoDConfig
from mod.cost import kv_bytes, token_layers
from mod.modeling import Stream, VideoLLMMoD
from tests.mod.small import FAMILIES, small_config, small_model, some_frames


def _text(n: int, seed: int = 1) -> Tensor:
    return torch.randint(5, 400, (n,), generator=torch.Generator().manual_seed(seed))


def _stream(model: VideoLLMMoD, n_frames: int) -> tuple[Tensor, Tensor]:
    """Opening text, then frames each followed by one text token; and where frames start."""
    n = model.config.tokens_per_frame
    features = model.encode_frames(some_frames(n_frames))
    words = model.embed_text(_text(n_frames + 3))
    parts = [words[:3]]
    starts = []
    for i in range(n_frames):
        starts.append(3 + i * (n + 1))
        parts += [features[i], words[3 + i : 4 + i]]
    return torch.cat(parts), torch.tensor(starts)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_without_routing_logits_equal_the_unmodified_transformers_model(family: str) -> None:
    """Guards against our attention or gather changing what the layers compute."""
    model = small_model(family, router="none")
    x, starts = _stream(model, 5)
    ours = model.logits(model(Stream(x, torch.arange(len(x)), starts, [len(x)])))
    model.language_model.set_attn_implementation("eager")
    theirs = model.language_model(inputs_embeds=x[None], use_cache=False).logits[0]
    model.language_model.set_attn_implementation(NAME)
    assert torch.allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("router", ["learned", "bounded", "uniform", "random", "none"])
@torch.no_grad()
def test_frame_by_frame_equals_one_forward(router: str) -> None:
    """Guards against routing or attention that looks at other frames or at the chunking."""
    model = small_model(router=router)
    x, starts = _stream(model, 6)
    n = model.config.tokens_per_frame
    whole = model(Stream(x, torch.arange(len(x)), starts, [len(x)]))
    cache = RaggedKVCache(4)
    bounds = [0, 3, *(3 + (i + 1) * (n + 1) for i in range(6))]
    parts = []
    for low, high in itertools.pairwise(bounds):
        inside = (starts >= low) & (starts < high)
        piece = Stream(
            x[low:high], torch.arange(low, high), starts[inside] - low, [high - low], [cache]
        )
        parts.append(model(piece))
    assert torch.allclose(whole, torch.cat(parts), atol=1e-5)


@torch.no_grad()
def test_sequences_in_one_batch_do_not_touch_each_other() -> None:
    """Guards against attention across sessions, of equal and of different lengths."""
    model = small_model(router="bounded")
    a, a_starts = _stream(model, 4)
    b, b_starts = _stream(model, 2)
    alone = [
        model(Stream(x, torch.arange(len(x)), s, [len(x)]))
        for x, s in ((a, a_starts), (b, b_starts))
    ]
    for first, second in ((a, b), (a, a)):
        second_starts = b_starts if second is b else a_starts
        both = Stream(
            torch.cat([first, second]),
            torch.cat([torch.arange(len(first)), torch.arange(len(second))]),
            torch.cat([a_starts, second_starts + len(first)]),
            [len(first), len(second)],
        )
        out = model(both)
        assert torch.allclose(out[: len(a)], alone[0], atol=1e-5)
        assert torch.allclose(out[len(a) :], alone[1] if second is b else alone[0], atol=1e-5)


@torch.no_grad()
def test_a_mod_layer_follows_the_papers_equation() -> None:
    """Guards against a wrong weight or update: kept mu*f+x, skipped x, text f+x."""
    model = small_model(router="learned", mod_layers=[0], always_keep_decision=False)
    x, starts = _stream(model, 3)
    n, k = model.config.tokens_per_frame, model.config.kept_per_frame
    positions = torch.arange(len(x))
    seen: list[Tensor] = []
    hook = model.language_model.model.layers[1].register_forward_pre_hook(
        lambda _, args: seen.append(args[0][0])
    )
    model(Stream(x, positions, starts, [len(x)]))
    hook.remove()

    w = model.get_parameter("routers.0.weight")
    runs = torch.ones(len(x), dtype=torch.bool)
    weight = torch.ones(len(x))
    for start in starts.tolist():
        score = x[start : start + n] @ w
        kept = score.topk(k).indices
        runs[start : start + n] = False
        runs[start + kept] = True
        weight[start : start + n] = score
    decoder = model.language_model.model
    cos, sin = decoder.rotary_emb(x[None], positions[runs][None])
    model.language_model.set_attn_implementation("eager")
    mask = torch.full((int(runs.sum()),) * 2, -torch.inf).triu(1)[None, None]
    out = decoder.layers[0](x[runs][None], attention_mask=mask, position_embeddings=(cos, sin))[0]
    expected = x.clone()
    expected[runs] = x[runs] + weight[runs, None] * (out - x[runs])
    assert torch.allclose(seen[0], expected, atol=1e-5)


@torch.no_grad()
def test_skipped_tokens_write_no_keys_and_the_cost_model_knows() -> None:
    model = small_model(router="bounded", keep_ratio=0.2)
    x, starts = _stream(model, 5)
    cache = RaggedKVCache(4)
    model(Stream(x, torch.arange(len(x)), starts, [len(x)], [cache]))
    text = len(x) - 50
    assert cache.lengths == [len(x), text + 10, len(x), text + 10]
    assert cache.n_bytes == kv_bytes(model.config, 5, text, 4)
    assert sum(cache.lengths) == token_layers(model.config, 5, text)


@torch.no_grad()
def test_save_and_load_keep_config_weights_and_routing(tmp_path: Path) -> None:
    model = small_model("qwen3", router="bounded", mod_layers=[1, 2], keep_ratio=0.3)
    model.save_pretrained(tmp_path)
    again = VideoLLMMoD.from_pretrained(tmp_path).eval()
    assert again.config.mod_layers == [1, 2]
    x, starts = _stream(model, 3)
    stream = Stream(x, torch.arange(len(x)), starts, [len(x)])
    assert torch.equal(model(stream), again(stream))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"keep_ratio": 0.0}, "keep_ratio"),
        ({"keep_ratio": 1.5}, "keep_ratio"),
        ({"mod_layers": [4]}, "mod_layers"),
        ({"router": "best"}, "router"),
        ({"class_token": "middle"}, "class_token"),
        ({"pool_grid": 0}, "pool_grid"),
        ({"fps": 0.0}, "fps"),
    ],
)
def test_a_config_that_cannot_work_is_refused_by_name(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(Exception, match=named):
        small_config(**fields)


def test_defaults_are_the_papers() -> None:
    config = VideoLLMMoDConfig()
    assert (config.tokens_per_frame, config.kept_per_frame, config.fps) == (10, 2, 2.0)
    assert config.mod_layers == list(range(1, 32, 2))
