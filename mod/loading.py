"""Loading a checkpoint for inference, quietly and on the best device there is."""

from __future__ import annotations

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import logging as transformers_logging

from longreel.errors import UsageError
from mod.checkpoint import Checkpoint
from mod.choice import RouterChoice, choose_router
from mod.config import VideoLLMMoDConfig, placed
from mod.layout import StreamLayout
from mod.modeling import VideoLLMMoD


def load(
    checkpoint: Checkpoint, keep_ratio: float | None = None, router: str | None = None
) -> tuple[VideoLLMMoD, StreamLayout]:
    """The model, in eval mode, and its stream layout.

    On a CPU weights are computed with in float32; on a GPU in the checkpoint's own dtype.

    Args:
        keep_ratio: overrides the checkpoint's own.
        router: takes the place of the checkpoint's own, as :mod:`mod.choice` spells it.

    Raises:
        UsageError: the weights do not fit the config, or keep ratio or router cannot work.
    """
    chosen = None if router is None else choose_router(router, checkpoint)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    on_gpu = torch.cuda.is_available()
    try:
        config = VideoLLMMoDConfig.from_pretrained(checkpoint.folder)
        if keep_ratio is not None:
            config.keep_ratio = keep_ratio
        if chosen is not None:
            _route(config, chosen)
        config.check()
        model, info = VideoLLMMoD.from_pretrained(
            checkpoint.folder,
            config=config,
            dtype="auto" if on_gpu else torch.float32,
            output_loading_info=True,
            local_files_only=True,
        )
        layout = StreamLayout.load(checkpoint.folder, model.config)
    except (ValueError, OSError, RuntimeError, StrictDataclassError) as failure:
        reason = " ".join(str(failure).split())
        raise UsageError(
            f"the model at {str(checkpoint.folder)!r} cannot be loaded: {reason}"
        ) from None
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])[0]
        raise UsageError(f"the model at {str(checkpoint.folder)!r} lacks the weight {missing!r}")
    return model.eval().to("cuda" if on_gpu else "cpu"), layout


def _route(config: VideoLLMMoDConfig, chosen: RouterChoice) -> None:
    """Have ``config`` route as was chosen."""
    config.router = chosen.kind
    if chosen.layers is None:
        return
    n_layers = config.text_config.num_hidden_layers
    layers = chosen.layers
    config.mod_layers = placed(layers, n_layers) if isinstance(layers, str) else layers
    # They belong to the layers that were.
    config.keep_ratios = None
