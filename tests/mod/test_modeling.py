"""The network: dense equality, streaming equality, skipped tokens, saving and loading.

Guards against a network that is no more the one of the paper, and configs that fail amid training.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor
from transformers import LlamaConfig

from mod.attention import NAME
from mod.change import change, within
from mod.config import VideoLLMMoDConfig
from mod.cost import kv_bytes, token_layers
from mod.decoder import Stream, frames_before
from mod.modeling import VideoLLMMoD
from mod.routers import ROUTERS
from mod.routing import Routing
from tests.mod.plain import PlainCache
from tests.mod.small import FAMILIES, small_config, small_model, some_frames


def _text(n: int, seed: int = 1) -> Tensor:
    return torch.randint(5, 400, (n,), generator=torch.Generator().manual_seed(seed))


def _stream(model: VideoLLMMoD, n_frames: int) -> tuple[Tensor, Tensor]:
    """Opening text, then frames each followed by one text token; and where frames start."""
    n = model.config.tokens_per_frame
    frames = some_frames(n_frames)
    features = model.encode_frames(frames, frames_before(frames, None))
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "router", "frames_at_once"),
    [
        *(("llama", router, n) for router in ROUTERS for n in (1, 2, 4)),
        *((family, "learned", n) for family in FAMILIES if family != "llama" for n in (1, 4)),
    ],
)
@torch.no_grad()
def test_chunks_equal_one_forward(family: str, router: str, frames_at_once: int) -> None:
    """Guards against routing or attention that looks at other frames or at the chunking."""
    model = small_model(family, router=router)
    x, starts = _stream(model, 6)
    n = model.config.tokens_per_frame
    features = x[starts[:, None] + torch.arange(n)]
    changes = within(features, starts, [len(x)])
    whole_routings: dict[int, Routing] = {}
    whole = model(Stream(x, torch.arange(len(x)), starts, [len(x)], change=changes), whole_routings)
    cache = PlainCache(4)
    ends = [*range(frames_at_once, 6, frames_at_once), 6]
    bounds = [0, 3, *(3 + end * (n + 1) for end in ends)]
    parts = []
    last: Tensor | None = None
    kept: dict[int, list[Tensor]] = {layer: [] for layer in whole_routings}
    for low, high in itertools.pairwise(bounds):
        inside = (starts >= low) & (starts < high)
        frames, routings = features[inside], dict[int, Routing]()
        piece = Stream(
            x[low:high],
            torch.arange(low, high),
            starts[inside] - low,
            [high - low],
            [cache],
            change=change(frames, frames_before(frames, last)) if len(frames) else None,
        )
        parts.append(model(piece, routings))
        last = frames[-1] if len(frames) else last
        for layer, routing in routings.items():
            kept[layer].append(routing.kept)
    assert torch.allclose(model.logits(whole), model.logits(torch.cat(parts)), atol=1e-4)
    for layer, routing in whole_routings.items():
        assert torch.equal(routing.kept, torch.cat(kept[layer]))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"lengths": [11, 11]}, r"lengths \[11, 11\] sum to 22, not to the 25 tokens"),
        ({"positions": torch.arange(5)}, "positions of 5 tokens for embeddings of 25"),
        ({"caches": []}, "caches of 0 sequences for lengths of 1"),
        ({"frames": [1, 1]}, "frames of 2 sequences for lengths of 1"),
    ],
)
def test_a_stream_whose_parts_do_not_fit_is_refused(fields: dict[str, Any], named: str) -> None:
    """Guards against two sequences that are read where the caller meant others."""
    x, starts = _stream(small_model(), 2)
    stream = Stream(x, torch.arange(25), starts, [25])
    with pytest.raises(ValueError, match=named):
        replace(stream, **fields)


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
    n, k = model.config.tokens_per_frame, model.config.tokens_in_layer(0)
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
    cache = PlainCache(4)
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
        ({"mod_layers": [1, 1]}, "mod_layers"),
        ({"mod_layers": "everywhere"}, "mod_layers"),
        ({"mod_layers": "1,3"}, "mod_layers"),
        ({"mod_layers": "after-4"}, "mod_layers"),
        ({"keep_ratios": [0.5]}, "keep_ratios"),
        ({"keep_ratios": [0.5, 0.0]}, "keep_ratios"),
        ({"keep_schedule": "rising"}, "keep_schedule"),
        ({"pool_grid": 4}, "pool_grid"),
        ({"router": "best"}, "router"),
        ({"class_token": "middle"}, "class_token"),
        ({"pool_grid": 0}, "pool_grid"),
        ({"fps": 0.0}, "fps"),
        ({"fps": "fast"}, "fps"),
        ({"keep_ratio": None}, "keep_ratio"),
    ],
)
def test_a_config_that_cannot_work_is_refused_by_name(fields: dict[str, Any], named: str) -> None:
    with pytest.raises((ValueError, StrictDataclassError), match=named):
        small_config(**fields)


@pytest.mark.parametrize(
    ("part", "fields", "named"),
    [
        ("vision_config", {"hidden_size": 30, "num_attention_heads": 4}, "vision_config.hidden"),
        ("text_config", {"num_attention_heads": 4, "num_key_value_heads": 3}, "num_key_value"),
        ("text_config", {"is_encoder_decoder": True}, "decoder alone"),
        ("vision_config", {"patch_size": 48}, "pool_grid 3 is finer"),
    ],
)
def test_parts_that_cannot_work_are_refused_at_construction(
    part: str, fields: dict[str, Any], named: str
) -> None:
    config = small_config().to_dict()
    with pytest.raises(ValueError, match=named):
        VideoLLMMoDConfig(**{**config, part: {**config[part], **fields}})


def test_defaults_are_the_papers() -> None:
    config = VideoLLMMoDConfig()
    assert (config.tokens_per_frame, config.tokens_in_layer(1), config.fps) == (10, 2, 2.0)
    assert config.mod_layers == list(range(1, 32, 2))


@torch.no_grad()
def test_a_tower_that_sees_differences_needs_the_frame_before() -> None:
    """Guards against a change seen in the wrong direction or at the wrong frame."""
    model = small_model(frame_difference=True)
    frames = some_frames(4)
    whole = model.encode_frames(frames, frames_before(frames, None))
    rest = model.encode_frames(frames[2:], frames_before(frames[2:], frames[1]))
    assert torch.allclose(whole[2:], rest, atol=1e-5)
    still = model.encode_frames(frames[2:], frames[2:])
    assert not torch.allclose(whole[2:], still, atol=1e-2)


def test_a_tower_whose_channels_do_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"vision_config.num_channels must be 6"):
        VideoLLMMoDConfig(frame_difference=True)


@pytest.mark.parametrize(
    ("placement", "layers"),
    [
        ("interleaved", [1, 3, 5, 7]),
        ("interleaved-deep", [3, 5, 7]),
        ("all", list(range(8))),
        ("all-deep", list(range(2, 8))),
        ("after-2", list(range(2, 8))),
        ("after-5", [5, 6, 7]),
    ],
)
def test_placements_are_those_of_the_paper(placement: str, layers: list[int]) -> None:
    text = LlamaConfig(num_hidden_layers=8)
    assert VideoLLMMoDConfig(text_config=text, mod_layers=placement).mod_layers == layers


def test_a_keep_schedule_falls_over_the_depth_and_keeps_its_mean() -> None:
    text = LlamaConfig(num_hidden_layers=32)
    config = VideoLLMMoDConfig(
        text_config=text, mod_layers="all", keep_schedule="shifted_cosine", keep_ratio=0.4
    )
    kept = [config.tokens_in_layer(layer) for layer in range(32)]
    assert kept == sorted(kept, reverse=True)
    assert kept[0] > 6 > 2 > kept[-1]
    assert sum(kept) / 320 == pytest.approx(0.4, abs=0.03)
    config = VideoLLMMoDConfig(text_config=text, mod_layers=[3, 5], keep_ratios=[0.5, 0.1])
    assert [config.tokens_in_layer(layer) for layer in (2, 3, 5)] == [10, 5, 1]


@torch.no_grad()
def test_skipping_baselines_run_the_decision_token_or_none_at_all() -> None:
    for keep, expected in ((True, 1), (False, 0)):
        model = small_model(router="skip", mod_layers="after-2", always_keep_decision=keep)
        x, starts = _stream(model, 3)
        cache = PlainCache(4)
        routings: dict[int, Routing] = {}
        model(Stream(x, torch.arange(len(x)), starts, [len(x)], [cache]), routings)
        assert [int(r.kept.sum()) for r in routings.values()] == [3 * expected] * 2
        text = len(x) - 3 * model.config.tokens_per_frame
        assert cache.lengths == [len(x)] * 2 + [text + 3 * expected] * 2


@torch.no_grad()
def test_routings_can_be_asked_for() -> None:
    """Guards the heat map: the kept tokens are those of the highest scores."""
    model = small_model(router="learned", always_keep_decision=False)
    x, starts = _stream(model, 5)
    routings: dict[int, Routing] = {}
    model(Stream(x, torch.arange(len(x)), starts, [len(x)]), routings)
    assert list(routings) == [1, 3]
    for routing in routings.values():
        assert routing.score.shape == (5, 10)
        lowest = routing.score.masked_fill(~routing.kept, torch.inf).amin(1)
        highest = routing.score.masked_fill(routing.kept, -torch.inf).amax(1)
        assert (lowest >= highest).all()


@pytest.mark.parametrize("router", ["redundancy", "norm", "attention"])
@torch.no_grad()
def test_routers_without_training_that_keep_all_are_the_dense_model(router: str) -> None:
    """Guards the weight of a kept token: the residual branch is as it was trained."""
    dense, routed = small_model(router="none"), small_model(router=router, keep_ratio=1.0)
    x, starts = _stream(dense, 4)
    changes = torch.rand(4, 10)
    stream = Stream(x, torch.arange(len(x)), starts, [len(x)], change=changes)
    assert not list(routed.routers.parameters())
    assert torch.allclose(dense(stream), routed(stream), atol=1e-6)


@torch.no_grad()
def test_frames_without_their_change_are_refused_by_redundancy() -> None:
    model = small_model(router="redundancy")
    x, starts = _stream(model, 2)
    with pytest.raises(ValueError, match="redundancy"):
        model(Stream(x, torch.arange(len(x)), starts, [len(x)]))
