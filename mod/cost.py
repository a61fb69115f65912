"""What a stream costs, from the config alone: arithmetic, KV bytes, memory of a training step.

A token-layer is one token run through one decoder layer; multiply-accumulates are those of the
decoder's linear layers, as the paper counts its FLOPs.
"""

from __future__ import annotations

from mod.config import RoutedConfig


def vision_token_layers(config: RoutedConfig, n_frames: int) -> int:
    """Token-layers of the vision tokens of ``n_frames`` frames."""
    n_layers = config.get_text_config().num_hidden_layers
    return config.steps(n_frames) * sum(config.tokens_in_layer(layer) for layer in range(n_layers))


def token_layers(config: RoutedConfig, n_frames: int, n_text: int) -> int:
    """Token-layers of ``n_frames`` frames and ``n_text`` text tokens, silence tokens included."""
    return (
        vision_token_layers(config, n_frames) + n_text * config.get_text_config().num_hidden_layers
    )


def layer_weights(config: RoutedConfig, lora_rank: int = 0) -> int:
    """Weights of one decoder layer's linear maps, with LoRA of ``lora_rank`` on each of them."""
    text = config.get_text_config()
    hidden, inner = text.hidden_size, text.intermediate_size
    head_dim = getattr(text, "head_dim", None) or hidden // text.num_attention_heads
    queries = text.num_attention_heads * head_dim
    keys = text.num_key_value_heads * head_dim
    shapes = [(hidden, queries), (hidden, keys), (hidden, keys), (queries, hidden)]
    shapes += [(hidden, inner), (hidden, inner), (inner, hidden)]
    return sum(a * b + lora_rank * (a + b) for a, b in shapes)


def kv_bytes(config: RoutedConfig, n_frames: int, n_text: int, element_size: int) -> int:
    """Bytes of keys and values after ``n_frames`` frames and ``n_text`` text tokens."""
    text = config.get_text_config()
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    per_token = 2 * text.num_key_value_heads * head_dim * element_size
    return token_layers(config, n_frames, n_text) * per_token


def macs(config: RoutedConfig, n_frames: int, n_text: int, *, lora_rank: int = 0) -> int:
    """Multiply-accumulates of the decoder's linear layers; attention and the tower left out.

    Args:
        n_text: text tokens, silence tokens included.
    """
    return token_layers(config, n_frames, n_text) * layer_weights(config, lora_rank)


def activation_bytes(
    config: RoutedConfig,
    n_frames: int,
    n_text: int,
    element_size: int = 4,
    *,
    checkpointing: bool = False,
) -> int:
    """Bytes that the decoder's layers keep from a forward for its backward.

    Counted for a gated MLP and an attention that keeps no scores; skipped tokens keep nothing.
    Within 3% of what autograd keeps in float32; the float32 copies that some families make of
    half-precision norms come on top.

    Args:
        n_text: text tokens, silence tokens included.
        checkpointing: layers keep their inputs alone, and the one that is recomputed everything.
    """
    text = config.get_text_config()
    hidden, inner = text.hidden_size, text.intermediate_size
    heads = text.num_attention_heads
    head_dim = getattr(text, "head_dim", None) or hidden // heads
    # Inputs of both norms and what they return, the residual sum, the norms' scaled values;
    # queries and attention output, keys, values; four tensors of the MLP; scalars.
    per_token = 6 * hidden + 2 * heads * head_dim + 2 * text.num_key_value_heads * head_dim
    per_token += 4 * inner + heads + 2
    vision, steps = config.vision_tokens(n_frames), config.steps(n_frames)
    layers = []
    for layer in range(text.num_hidden_layers):
        ran = n_text + steps * config.tokens_in_layer(layer)
        kept = ran * per_token
        if config.router != "none" and layer in config.mod_layers:
            # Both factors of the weighted branch.
            kept += 2 * ran * hidden
        layers.append(kept)
    if checkpointing:
        inputs = text.num_hidden_layers * (n_text + vision) * hidden
        return element_size * (inputs + max(layers))
    return element_size * sum(layers)
