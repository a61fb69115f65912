"""Low-rank updates of the language model through peft, and the plain weights they amount to."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from mod.decoder import RoutedDecoder

_A, _B = ".lora_A.default.weight", ".lora_B.default.weight"


def add_lora(model: RoutedDecoder, rank: int, alpha: int) -> None:
    """Put updates of ``rank`` on every linear map of the decoder layers; freeze what they update.

    So is all else but for what the model says is trained beside them, such as routers.
    """
    from peft import LoraConfig, inject_adapter_in_model

    for parameter in model.parameters():
        parameter.requires_grad = False
    decoder = model.decoder
    names = [
        f"layers.{name}"
        for name, part in decoder.layers.named_modules()
        if isinstance(part, nn.Linear)
    ]
    inject_adapter_in_model(
        LoraConfig(r=rank, lora_alpha=alpha, target_modules=names, bias="none"), decoder
    )
    for part in model.trained_beside():
        for parameter in part.parameters():
            parameter.requires_grad = True


def merged(weights: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """The state dict of the plain model that computes the same.

    Args:
        weights: state dict of a model, with or without updates.
        scale: ``alpha / rank``.
    """
    plain = {}
    for name, tensor in weights.items():
        if ".lora_" in name:
            continue
        stem = name.removesuffix(".base_layer.weight")
        if stem != name and stem + _A in weights:
            update = weights[stem + _B].float() @ weights[stem + _A].float() * scale
            tensor = (tensor.float() + update).to(tensor.dtype)
        plain[name.replace(".base_layer.", ".")] = tensor
    return plain
