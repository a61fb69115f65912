"""What a stream costs, from the config alone: token-layers, multiply-accumulates, KV bytes.

A token-layer is one token run through one decoder layer; multiply-accumulates are those of the
decoder's linear layers, as the paper counts its FLOPs.
"""

from __future__ import annotations

from mod.config import VideoLLMMoDConfig


def vision_token_layers(config: VideoLLMMoDConfig, n_frames: int) -> int:
    """Token-layers of the vision tokens of ``n_frames`` frames."""
    n_layers = config.text_config.num_hidden_layers
    return n_frames * sum(config.tokens_in_layer(layer) for layer in range(n_layers))


def token_layers(config: VideoLLMMoDConfig, n_frames: int, n_text: int) -> int:
    """Token-layers of ``n_frames`` frames and ``n_text`` text tokens, silence tokens included."""
    return vision_token_layers(config, n_frames) + n_text * config.text_config.num_hidden_layers


def layer_weights(config: VideoLLMMoDConfig, lora_rank: int = 0) -> int:
    """Weights of one decoder layer's linear maps, with LoRA of ``lora_rank`` on each of them."""
    text = config.text_config
    hidden, inner = text.hidden_size, text.intermediate_size
    head_dim = getattr(text, "head_dim", None) or hidden // text.num_attention_heads
    queries = text.num_attention_heads * head_dim
    keys = text.num_key_value_heads * head_dim
    shapes = [(hidden, queries), (hidden, keys), (hidden, keys), (queries, hidden)]
    shapes += [(hidden, inner), (hidden, inner), (inner, hidden)]
    return sum(a * b + lora_rank * (a + b) for a, b in shapes)


def kv_bytes(config: VideoLLMMoDConfig, n_frames: int, n_text: int, element_size: int) -> int:
    """Bytes of keys and values after ``n_frames`` frames and ``n_text`` text tokens."""
    text = config.text_config
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    per_token = 2 * text.num_key_value_heads * head_dim * element_size
    return token_layers(config, n_frames, n_text) * per_token


def mean_keep(config: VideoLLMMoDConfig) -> float:
    """Share of a frame's vision tokens that run, averaged over all layers."""
    n_layers = config.text_config.num_hidden_layers
    return vision_token_layers(config, 1) / (config.tokens_per_frame * n_layers)


def macs(
    config: VideoLLMMoDConfig,
    n_frames: int,
    n_text: int,
    *,
    lora_rank: int = 0,
    keep: float | None = None,
) -> float:
    """Multiply-accumulates of the decoder's linear layers; attention and the tower left out.

    Args:
        n_text: text tokens, silence tokens included.
        keep: mean share of vision tokens that run, where it is not the config's own.
    """
    share = mean_keep(config) if keep is None else keep
    tokens = n_text + n_frames * config.tokens_per_frame * share
    n_layers: int = config.text_config.num_hidden_layers
    return tokens * n_layers * layer_weights(config, lora_rank)
