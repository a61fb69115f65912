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
from mod.checkpoint import OURS, Checkpoint, weight_bytes
from mod.choice import TRAINED, RouterChoice, choose_router, require_router
from mod.config import RoutedConfig, VideoLLMMoDConfig, placed
from mod.decoder import RoutedDecoder
from mod.families.chat import ChatLayout
from mod.layout import Layout, StreamLayout
from mod.modeling import VideoLLMMoD
from mod.quantized import check_quantize, quantization

_Model = TypeVar("_Model", bound=RoutedDecoder)

#: Of the memory that is free, what weights may take: caches and activations need the rest.
_SHARE = 0.9


def load(
    checkpoint: Checkpoint,
    keep_ratio: float | None = None,
    router: str | None = None,
    quantize: str | None = None,
) -> tuple[VideoLLMMoD, StreamLayout]:
    """A VideoLLM-MoD model, in eval mode, and its stream layout.

    On a CPU weights are computed with in float32; on a GPU in the checkpoint's own dtype.

    Args:
        keep_ratio: overrides the checkpoint's own.
        router: takes the place of the checkpoint's own, as :mod:`mod.choice` spells it.
        quantize: what the decoder's linear maps are turned into; see :mod:`mod.quantized`.

    Raises:
        UsageError: the weights do not fit the config or the memory, or keep ratio or router cannot
            work, or it is another kind of model.
    """
    if checkpoint.kind != OURS:
        raise UsageError(
            f"the model at {str(checkpoint.folder)!r} is a {checkpoint.kind!r}, not a {OURS!r}"
        )
    chosen = _chosen(checkpoint, keep_ratio, router)
    with _refused(checkpoint.folder, quantize) as options:
        config = VideoLLMMoDConfig.from_pretrained(checkpoint.folder)
        _route(config, keep_ratio, chosen)
        model = _with_all_weights(checkpoint.folder, VideoLLMMoD, config=config, **options)
        layout = StreamLayout.load(checkpoint.folder, model.config)
    return _placed(model, quantize), layout


def load_any(
    checkpoint: Checkpoint,
    keep_ratio: float | None = None,
    router: str | None = None,
    quantize: str | None = None,
) -> tuple[RoutedDecoder, Layout]:
    """Any model that can be served; see ``load``."""
    if checkpoint.kind == OURS:
        return load(checkpoint, keep_ratio, router, quantize)
    return load_open(checkpoint, keep_ratio, router, quantize)


def load_open(
    checkpoint: Checkpoint,
    keep_ratio: float | None = None,
    router: str | None = None,
    quantize: str | None = None,
    *,
    new: bool = False,
) -> tuple[AdoptedModel, ChatLayout]:
    """An open model; see ``load``.

    Args:
        new: the router is to be trained, and begins as if there were none where the checkpoint has
            no weights of one.
    """
    chosen = _chosen(checkpoint, keep_ratio, router, new=new)
    with _refused(checkpoint.folder, quantize) as options:
        config = adopted_config(checkpoint.folder)
        _route(config, keep_ratio, chosen)
        layout = adopted_layout(checkpoint.folder, config)
        base = _with_all_weights(checkpoint.folder, AutoModelForImageTextToText, **options)
        model = AdoptedModel(config, base)
        if config.router in TRAINED:
            load_routers(model, checkpoint.folder, new=new)
    return _placed(model, quantize), layout


def _chosen(
    checkpoint: Checkpoint, keep_ratio: float | None, router: str | None, *, new: bool = False
) -> RouterChoice | None:
    chosen = None if router is None else choose_router(router, checkpoint, new=new)
    require_router(keep_ratio, chosen.kind if chosen else None, checkpoint)
    return chosen


@contextmanager
def _refused(folder: Path, quantize: str | None) -> Iterator[dict[str, Any]]:
    """How to load; what goes wrong with the files meanwhile is told in one line."""
    check_quantize(quantize)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    on_gpu = torch.cuda.is_available()
    try:
        refuse_larger_than_memory(folder, None if on_gpu else 4, quantize)
        options: dict[str, Any] = {"dtype": "auto" if on_gpu else torch.float32}
        if quantize:
            options["quantization_config"] = quantization(quantize)
        if torch.cuda.device_count() > 1:
            options["device_map"] = "balanced"
        yield options
    except (ValueError, OSError, RuntimeError, SafetensorError, StrictDataclassError) as failure:
        reason = " ".join(str(failure).split())
        raise UsageError(f"the model at {str(folder)!r} cannot be loaded: {reason}") from None


def _placed(model: _Model, quantize: str | None) -> _Model:
    """``model`` ready to run, on the device or devices that there are."""
    if quantize:
        model.without_grad = torch.no_grad
    if torch.cuda.device_count() > 1:
        return spread(model.eval())
    return model.eval().to("cuda" if torch.cuda.is_available() else "cpu")


def spread(model: _Model) -> _Model:
    """Have ``model`` run where its layers were laid, each with its router."""
    from accelerate.hooks import remove_hook_from_module

    layers = model.decoder.layers
    model.layer_devices = [next(layer.parameters()).device for layer in layers]
    for index, router in model.routers.items():
        remove_hook_from_module(router, recurse=True)
        router.to(model.layer_devices[int(index)])
    return model


def _with_all_weights(folder: Path, kind: Any, **options: Any) -> Any:
    """A model from ``folder`` that lacks none of its weights."""
    model, info = kind.from_pretrained(
        folder, output_loading_info=True, local_files_only=True, **options
    )
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])[0]
        raise UsageError(f"the model at {str(folder)!r} lacks the weight {missing!r}")
    return model


def _route(config: RoutedConfig, keep_ratio: float | None, chosen: RouterChoice | None) -> None:
    """Have ``config`` route as was chosen."""
    if chosen is not None:
        config.router = chosen.kind
        if chosen.layers is not None:
            n_layers = config.get_text_config().num_hidden_layers
            layers = chosen.layers
            config.mod_layers = placed(layers, n_layers) if isinstance(layers, str) else layers
            # They belong to the layers that were.
            config.keep_ratios = None
    if keep_ratio is not None:
        config.keep_ratio = keep_ratio
    config.check()


def refuse_larger_than_memory(folder: Path, width: int | None, quantize: str | None = None) -> None:
    """Refuse weights that memory cannot hold, before any is read.

    Args:
        width, quantize: as for ``weight_bytes``.

    Raises:
        UsageError: says what is needed and what is free.
    """
    needed = weight_bytes(folder, width, quantize)
    on_gpu = torch.cuda.is_available()
    free = _free_on_gpus() if on_gpu else _available_bytes()
    if free is not None and needed > _SHARE * free:
        raise UsageError(
            f"the weights of the model at {str(folder)!r} take {needed / 2**30:.1f} GiB; "
            f"{free / 2**30:.1f} GiB of {'GPU memory' if on_gpu else 'memory'} are free"
        )


def _free_on_gpus() -> int:
    """Memory that is free on all GPUs together."""
    devices = range(torch.cuda.device_count())
    return sum(torch.cuda.mem_get_info(device)[0] for device in devices)


def _available_bytes() -> int | None:
    """Memory that can be had without swapping, where the system says."""
    for line in _lines(Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):
            return 1024 * int(line.split()[1])
    return None


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.is_file() else []
