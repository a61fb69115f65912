"""Loading a checkpoint for inference, quietly and on the best device there is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoModelForImageTextToText
from transformers import logging as transformers_logging

from longreel.errors import UsageError
from mod.adopted import AdoptedModel, adopted_config, adopted_layout, load_routers
from mod.checkpoint import OURS, Checkpoint
from mod.choice import RouterChoice, choose_router, require_router
from mod.config import RoutedConfig, VideoLLMMoDConfig
from mod.decoder import RoutedDecoder
from mod.families.chat import ChatLayout
from mod.layout import Layout, StreamLayout
from mod.modeling import VideoLLMMoD
from mod.quantized import check_quantize, quantization
from mod.routers import TRAINED, placed
from mod.weights import available_bytes, refuse_larger_than

_Model = TypeVar("_Model", bound=RoutedDecoder)

#: What loading ends in where files are wrong, or of a kind that needs a library that is not there.
_BAD_FILES = (
    ValueError,
    OSError,
    RuntimeError,
    ImportError,
    SafetensorError,
    StrictDataclassError,
)


def load(
    checkpoint: Checkpoint,
    keep_ratio: float | None = None,
    router: str | None = None,
    quantize: str | None = None,
    *,
    new: bool = False,
    device: torch.device | None = None,
) -> tuple[VideoLLMMoD, StreamLayout]:
    """A VideoLLM-MoD model, in eval mode, and its stream layout.

    On a CPU weights are computed with in float32; on a GPU in the checkpoint's own dtype.

    Args:
        keep_ratio: overrides the checkpoint's own, those of single layers too.
        router: takes the place of the checkpoint's own, as :mod:`mod.choice` spells it.
        quantize: what the decoder's linear maps are turned into; see :mod:`mod.quantized`.
        new: the router is to be trained, and begins untrained where the checkpoint has no weights
            of its kind and layers; who trains the model puts it where it learns.
        device: where all of it shall lie; None takes all GPUs, or the CPU where there is none.

    Raises:
        UsageError: the weights do not fit the config or the memory, or keep ratio or router cannot
            work, or it is another kind of model.
    """
    if checkpoint.kind != OURS:
        raise UsageError(
            f"the model at {str(checkpoint.folder)!r} is a {checkpoint.kind!r}, not a {OURS!r}"
        )
    chosen = _chosen(checkpoint, keep_ratio, router, new=new)
    with _refused(checkpoint.folder, quantize, whole=new, device=device) as options:
        config = VideoLLMMoDConfig.from_pretrained(checkpoint.folder)
        route(config, keep_ratio, chosen)
        model = _with_all_weights(
            checkpoint.folder, VideoLLMMoD, new_routers=new, config=config, **options
        )
        if config.router != checkpoint.router:
            # Weights of another kind are no start for this one.
            model.routers.apply(model._init_weights)
        layout = StreamLayout.load(checkpoint.folder, model.config)
    return (model.eval() if new else _placed(model, quantize, device)), layout


def load_any(
    checkpoint: Checkpoint,
    keep_ratio: float | None = None,
    router: str | None = None,
    quantize: str | None = None,
    *,
    device: torch.device | None = None,
) -> tuple[RoutedDecoder, Layout]:
    """Any model that can be served; see ``load``."""
    if checkpoint.kind == OURS:
        return load(checkpoint, keep_ratio, router, quantize, device=device)
    return load_open(checkpoint, keep_ratio, router, quantize, device=device)


def load_open(
    checkpoint: Checkpoint,
    keep_ratio: float | None = None,
    router: str | None = None,
    quantize: str | None = None,
    *,
    new: bool = False,
    device: torch.device | None = None,
) -> tuple[AdoptedModel, ChatLayout]:
    """An open model; see ``load``.

    Args:
        new: the router is to be trained, and begins untrained where the checkpoint has no weights
            of its kind and layers, ``bounded`` as if there were none; who trains the model puts it
            where it learns.
    """
    chosen = _chosen(checkpoint, keep_ratio, router, new=new)
    with _refused(checkpoint.folder, quantize, whole=new, device=device) as options:
        config = adopted_config(checkpoint.folder)
        route(config, keep_ratio, chosen)
        layout = adopted_layout(checkpoint.folder, config)
        base = _with_all_weights(checkpoint.folder, AutoModelForImageTextToText, **options)
        model = AdoptedModel(config, base)
        if config.router in TRAINED:
            load_routers(model, checkpoint.folder, checkpoint.router, new=new)
    return (model.eval() if new else _placed(model, quantize, device)), layout


def _chosen(
    checkpoint: Checkpoint, keep_ratio: float | None, router: str | None, *, new: bool = False
) -> RouterChoice | None:
    chosen = None if router is None else choose_router(router, checkpoint, new=new)
    require_router(keep_ratio, chosen.kind if chosen else None, checkpoint)
    return chosen


@contextmanager
def _refused(
    folder: Path,
    quantize: str | None,
    *,
    whole: bool = False,
    device: torch.device | None = None,
) -> Iterator[dict[str, Any]]:
    """How to load; what goes wrong with the files meanwhile is told in one line.

    Args:
        whole: on the CPU, not on the GPU or GPUs that there are.
        device: as for ``load``.
    """
    check_quantize(quantize)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    on_gpu = _on_gpu(device)
    try:
        if whole:  # whoever trains it puts it where it learns, perhaps in parts
            refuse_larger_than(available_bytes(), folder, quantize, on_gpu=on_gpu)
        else:
            refuse_larger_than_memory(folder, quantize, device)
        options: dict[str, Any] = {"dtype": "auto" if on_gpu else torch.float32}
        if quantize:
            options["quantization_config"] = quantization(quantize)
        if _over_several(device) and not whole:
            options["device_map"] = "balanced"
        yield options
    except _BAD_FILES as failure:
        reason = " ".join(str(failure).split())
        raise UsageError(f"the model at {str(folder)!r} cannot be loaded: {reason}") from None


def _placed(model: _Model, quantize: str | None, device: torch.device | None) -> _Model:
    """``model`` ready to run, on ``device``, or on the device or devices that there are."""
    if quantize:
        model.without_grad = torch.no_grad
    if _over_several(device):
        return spread(model.eval())
    model.eval().to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return model


def _on_gpu(device: torch.device | None) -> bool:
    return device.type == "cuda" if device else torch.cuda.is_available()


def _over_several(device: torch.device | None) -> bool:
    return device is None and torch.cuda.device_count() > 1


def spread(model: _Model) -> _Model:
    """Have ``model`` run where its layers were laid, each with its router."""
    from accelerate.hooks import remove_hook_from_module

    layers = model.decoder.layers
    model.layer_devices = [next(layer.parameters()).device for layer in layers]
    for index, router in model.routers.items():
        remove_hook_from_module(router, recurse=True)
        router.to(model.layer_devices[int(index)])
    return model


def _with_all_weights(folder: Path, kind: Any, *, new_routers: bool = False, **options: Any) -> Any:
    """A model from ``folder`` that lacks none of its weights, new routers aside."""
    model, info = kind.from_pretrained(
        folder,
        output_loading_info=True,
        local_files_only=True,
        ignore_mismatched_sizes=True,  # told below: transformers names them in its log alone
        **options,
    )
    if info["mismatched_keys"]:
        name, found, wanted = sorted(info["mismatched_keys"])[0]
        raise UsageError(
            f"the model at {str(folder)!r} cannot be loaded: the weight {name!r} has the shape "
            f"{tuple(found)}, and its config asks for {tuple(wanted)}"
        )
    for missing in sorted(info["missing_keys"]):
        if not (new_routers and missing.startswith("routers.")):
            raise UsageError(f"the model at {str(folder)!r} lacks the weight {missing!r}")
    return model


def route(config: RoutedConfig, keep_ratio: float | None, chosen: RouterChoice | None) -> None:
    """Have ``config`` route as was chosen.

    Raises:
        ValueError: it cannot; the message names the field.
    """
    if chosen is not None:
        config.router = chosen.kind
        if chosen.layers is not None:
            n_layers = config.get_text_config().num_hidden_layers
            layers = chosen.layers
            config.mod_layers = placed(layers, n_layers) if isinstance(layers, str) else layers
            # They belong to the layers that were; their mean stays.
            config.keep_ratio = config.mean_keep_ratio
            config.keep_ratios = None
    if keep_ratio is not None:
        config.keep_ratio = keep_ratio
        # It holds for every layer that routes.
        config.keep_ratios = None
    config.check()


def refuse_larger_than_memory(
    folder: Path, quantize: str | None = None, device: torch.device | None = None
) -> None:
    """Refuse weights that the memory here cannot hold, before any is read.

    Args:
        device: as for ``load``.

    Raises:
        UsageError: says what is needed and what is free.
    """
    on_gpu = _on_gpu(device)
    free = _free_on_gpus(device) if on_gpu else available_bytes()
    where = "GPU memory" if on_gpu else "memory"
    refuse_larger_than(free, folder, quantize, on_gpu=on_gpu, where=where)


def _free_on_gpus(device: torch.device | None) -> int:
    """Memory that is free on ``device``, or on all GPUs together."""
    devices = [device] if device else range(torch.cuda.device_count())
    return sum(torch.cuda.mem_get_info(one)[0] for one in devices)
