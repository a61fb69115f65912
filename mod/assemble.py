"""Assemble a VideoLLM-MoD checkpoint from a SigLIP folder, a language model folder and a LoRA.

Nothing is trained here: text comes out as from the language model with its LoRA merged.
"""

from __future__ import annotations

import copy
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerBase,
    SiglipVisionModel,
)
from transformers import logging as transformers_logging

from longreel.errors import LongreelError, UsageError
from mod.config import LAYOUTS, SCHEDULES, VideoLLMMoDConfig
from mod.cost import kv_bytes
from mod.layout import ONLINE_INSTRUCTION, StreamLayout
from mod.modeling import GENERATION, Connector, VideoLLMMoD
from mod.parts import (
    Adapter,
    auto,
    fitting_connector,
    loaded,
    one_line,
    read_adapter,
    readable,
    refuse_other_arithmetic,
    text_config_of,
    vision_config_of,
)
from mod.routers import PLACEMENTS, ROUTERS, layers_of
from mod.routing import LayerRouter

#: What VideoLLM-online marks silence with; its adapters have learned it.
ONLINE_SILENCE = ","


@dataclass(frozen=True)
class Assembly:
    """What a checkpoint is assembled from, and how frames are to be routed in it.

    Attributes:
        vision: folder of a ``SiglipModel`` or ``SiglipVisionModel``.
        lm: folder of a decoder-only transformers language model with its tokenizer.
        output: folder to make.
        lora: folder of a peft LoRA for ``lm``, with or without a ``connector``.
        keep_ratio, keep_schedule, keep_ratios, mod_layers, router, pool_grid, fps: see
            :class:`mod.config.VideoLLMMoDConfig`; ``mod_layers`` is a placement or layer
            numbers with commas between them, as ``keep_ratios`` are.
        silence_token: token that stands for silence; None takes VideoLLM-online's where a
            connector comes with ``lora``, and a new token elsewhere.
        layout: of the stream, ``marks`` or ``online``; None takes VideoLLM-online's where a
            connector comes with ``lora``: that is what it was taught.
        max_shard_size: largest weight file, such as ``5GB``.
        force: replace the checkpoint at ``output``.
    """

    vision: Path
    lm: Path
    output: Path
    lora: Path | None = None
    keep_ratio: float = 0.2
    keep_schedule: str = "constant"
    keep_ratios: str | None = None
    mod_layers: str = "interleaved"
    router: str = "bounded"
    pool_grid: int = 3
    fps: float = 2.0
    silence_token: str | None = None
    layout: str | None = None
    max_shard_size: str = "5GB"
    force: bool = False


@torch.no_grad()
def assemble(assembly: Assembly) -> list[str]:
    """Write the checkpoint that ``assembly`` describes; nothing is left behind if that fails.

    Weights have the language model's dtype. Rows for new tokens are the mean of the old rows.
    The same parts give the same bytes.

    Returns:
        Lines that describe the checkpoint to a person.

    Raises:
        UsageError: a part is missing, of a kind that cannot work, or does not fit the others.
        LongreelError: the output cannot be written.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    _refuse_output(assembly)
    vision_config, text_config = vision_config_of(assembly.vision), text_config_of(assembly.lm)
    adapter = read_adapter(assembly.lora) if assembly.lora else None
    connector = fitting_connector(adapter, vision_config, text_config)
    tokenizer, fields, n_added = _tokenizer(assembly, online=bool(connector))
    _config(assembly, vision_config, text_config, fields)  # refused before any weight is read
    refuse_other_arithmetic(text_config)
    with _written_whole(assembly.output.resolve()) as folder:
        lm = loaded("language model", assembly.lm, AutoModelForCausalLM, dtype="auto")
        if adapter:
            lm = _merged(lm, adapter)
        _make_room(lm, len(tokenizer))
        tower = loaded("vision tower", assembly.vision, SiglipVisionModel, dtype=lm.dtype)
        config = _config(assembly, vision_config, lm.config, fields)
        model = _put_together(config, tower, lm, connector)
        if (generation := assembly.lm / GENERATION).is_file():
            model.generation = generation.read_bytes()
        model.save_pretrained(folder, max_shard_size=assembly.max_shard_size)
        tokenizer.save_pretrained(folder)
        _refuse_other_words(tokenizer, StreamLayout.load(folder, model.config))
        for file in folder.glob("*.safetensors"):  # written for their owner's eyes alone
            file.chmod((folder / "config.json").stat().st_mode)
    origin = f"from {assembly.lora}" if connector else "new, train it before use"
    return [*_described(model, n_added), f"connector: {origin}"]


def _refuse_output(assembly: Assembly) -> None:
    named, output = repr(str(assembly.output)), assembly.output.resolve()
    if not re.fullmatch(r"\d+(\.\d+)?[KMGT]B", assembly.max_shard_size, re.IGNORECASE):
        raise UsageError(f"max-shard-size must be like 5GB, not {assembly.max_shard_size!r}")
    for part in filter(None, (assembly.vision, assembly.lm, assembly.lora)):
        if part.resolve().is_relative_to(output):
            raise UsageError(f"the output {named} would replace {str(part)!r}")
    if output.exists() and not output.is_dir():
        raise UsageError(f"the output {named} is a file")
    if not output.is_dir() or not any(output.iterdir()):
        return
    if not assembly.force:
        raise UsageError(f"the output {named} is not empty; --force replaces it")
    # A mistyped path must not cost anyone more than a model.
    if not (output / "config.json").is_file():
        raise UsageError(f"the output {named} is no checkpoint; --force does not replace it")


def _tokenizer(
    assembly: Assembly, online: bool
) -> tuple[PreTrainedTokenizerBase, dict[str, str], int]:
    """The language model's tokenizer with the stream's marks, fields of the config that tell of
    them and of the layout, and how many marks are new.
    """
    if not any(assembly.lm.glob("tokenizer*")):
        raise UsageError(f"the language model at {str(assembly.lm)!r} comes without its tokenizer")
    tokenizer = readable("tokenizer", assembly.lm, lambda: auto(AutoTokenizer, assembly.lm))
    for name in ("is_local", "local_files_only"):  # how it was read, which would be saved too
        tokenizer.init_kwargs.pop(name, None)
    known = tokenizer.get_vocab()
    silence = assembly.silence_token
    if silence is None and online and ONLINE_SILENCE in known:
        silence = ONLINE_SILENCE
    own = {"begin": tokenizer.bos_token, "end": tokenizer.eos_token, "silence": silence}
    # One that also stands for unknown text, as in Qwen2's base models, marks nothing.
    own = {name: token for name, token in own.items() if token != tokenizer.unk_token}
    layout = assembly.layout or ("online" if online and silence == ONLINE_SILENCE else "marks")
    if layout not in LAYOUTS:
        raise UsageError(f"layout must be one of {', '.join(LAYOUTS)}, not {layout!r}")
    roles = ("user", "assistant") if layout == "marks" else ()
    marks = {
        f"{name}_token": str(own.get(name) or getattr(VideoLLMMoDConfig, f"{name}_token"))
        for name in ("begin", "silence", *roles, "end")
    }
    if list(marks.values()).count(marks["silence_token"]) > 1:
        raise UsageError(f"the silence token {silence!r} already marks something else")
    new = [token for token in dict.fromkeys(marks.values()) if token not in known]
    tokenizer.add_special_tokens({"extra_special_tokens": new}, replace_extra_special_tokens=False)
    fields = {**marks, "layout": layout}
    if layout == "online":
        fields["instruction"] = ONLINE_INSTRUCTION
    return tokenizer, fields, len(new)


def _config(
    assembly: Assembly, vision_config: Any, text_config: Any, fields: dict[str, str]
) -> VideoLLMMoDConfig:
    layers = layers_of(assembly.mod_layers)
    if layers is None:
        raise UsageError(
            f"mod-layers must be one of {', '.join(PLACEMENTS)}, or layers such as 1,3,5, "
            f"not {assembly.mod_layers!r}"
        )
    try:
        ratios = assembly.keep_ratios and [float(r) for r in assembly.keep_ratios.split(",")]
    except ValueError:
        raise UsageError(
            f"keep-ratios must be numbers such as 0.5,0.2, not {assembly.keep_ratios!r}"
        ) from None
    if assembly.keep_schedule not in SCHEDULES:
        raise UsageError(
            f"keep-schedule must be one of {', '.join(SCHEDULES)}, not {assembly.keep_schedule!r}"
        )
    if assembly.router not in ROUTERS:
        raise UsageError(f"router must be one of {', '.join(ROUTERS)}, not {assembly.router!r}")
    try:
        return VideoLLMMoDConfig(
            vision_config=vision_config,
            text_config=text_config,
            pool_grid=assembly.pool_grid,
            router=assembly.router,
            keep_ratio=assembly.keep_ratio,
            keep_schedule=assembly.keep_schedule,
            keep_ratios=ratios or None,
            mod_layers=layers,
            fps=assembly.fps,
            **fields,
        )
    except (ValueError, StrictDataclassError) as failure:
        raise UsageError(one_line(failure)) from None


def _merged(lm: Any, adapter: Adapter) -> Any:
    """``lm`` with the low-rank updates added to its weights."""
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
    from peft import set_peft_model_state_dict as set_state_dict

    head, words = lm.get_output_embeddings(), lm.get_input_embeddings()
    if head.weight is words.weight and any(
        f".{name}." in tensor for tensor in adapter.tensors for name in ("lm_head", "embed_tokens")
    ):
        # An update of one of the two must not reach the other through their shared weight.
        head.weight = nn.Parameter(words.weight.clone())
        lm.config.tie_word_embeddings = False
    config = readable("LoRA", adapter.folder, lambda: LoraConfig.from_pretrained(adapter.folder))
    config.modules_to_save = [m for m in config.modules_to_save or () if m != "connector"] or None
    named = f"the LoRA at {str(adapter.folder)!r} does not fit the language model"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = get_peft_model(lm, config)
        except ValueError:  # not one of its target modules exists
            raise UsageError(
                f"{named}: no place for {min(adapter.tensors, default='it')!r}"
            ) from None
        wanted = get_peft_model_state_dict(model, save_embedding_layers=False)
        places = {**model.state_dict(), **wanted}
        for name in sorted({*wanted, *adapter.tensors}):
            have = adapter.tensors.get(name)
            if have is None:
                raise UsageError(f"{named}: it lacks {name!r}")
            if name not in places:
                raise UsageError(f"{named}: no place for {name!r}")
            if have.shape != places[name].shape:
                raise UsageError(
                    f"{named}: {name!r} has shape {tuple(have.shape)}, not "
                    f"{tuple(places[name].shape)}"
                )
        set_state_dict(model, adapter.tensors)
        return model.merge_and_unload()


def _make_room(lm: Any, n_tokens: int) -> None:
    """Rows for ``n_tokens`` tokens, where there are fewer."""
    have = lm.get_input_embeddings().weight.shape[0]
    if n_tokens <= have:
        return
    lm.resize_token_embeddings(n_tokens, mean_resizing=False)
    for part in (lm.get_input_embeddings(), lm.get_output_embeddings()):
        part.weight[have:] = part.weight[:have].mean(0, dtype=torch.float32).to(part.weight.dtype)


def _put_together(
    config: VideoLLMMoDConfig, tower: Any, lm: Any, connector: dict[str, Tensor]
) -> VideoLLMMoD:
    """The model of these parts, with what is new beside them."""
    with torch.device("meta"):
        model = VideoLLMMoD(config)
    hidden_size = config.text_config.hidden_size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model.connector = Connector(config.vision_config.hidden_size, hidden_size)
        model.routers = nn.ModuleDict(
            {key: LayerRouter(hidden_size, config.router, int(key)) for key in model.routers}
        )
        model.connector.apply(model._init_weights)
        model.routers.apply(model._init_weights)
    if connector:
        model.connector.load_state_dict(connector)
    model.vision_tower, model.language_model = tower, lm
    return model.to(lm.dtype)


def _refuse_other_words(tokenizer: PreTrainedTokenizerBase, layout: StreamLayout) -> None:
    """Compare with the tokenizer as read back: its class depends on what lies beside it."""
    text = "A red car, 3 metres away; it's turning left.\n\tRésumé: 東京 \U0001f3a5"
    encoded = tokenizer.encode(text, add_special_tokens=False)
    if layout.encode(text) != encoded or len(layout.tokenizer) != len(tokenizer):
        raise UsageError(f"tokenizer class {type(tokenizer).__name__} changes when it is saved")


@contextmanager
def _written_whole(output: Path) -> Iterator[Path]:
    """A folder beside ``output`` that takes its place once everything in it is written."""
    partial = output.with_name(f".{output.name}.partial-{os.getpid()}")
    replaced = output.with_name(f".{output.name}.replaced-{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        yield partial
        if output.exists():
            output.rename(replaced)
        partial.rename(output)
    except (OSError, SafetensorError) as failure:
        raise LongreelError(f"cannot write {str(output)!r}: {one_line(failure)}") from None
    finally:
        if replaced.exists() and not output.exists():
            replaced.rename(output)
        for folder in (partial, replaced):
            shutil.rmtree(folder, ignore_errors=True)


def _described(model: VideoLLMMoD, n_added: int) -> list[str]:
    config, weights = model.config, list(model.parameters())
    vision, text = config.vision_config, config.text_config
    layers = [] if config.router == "none" else config.mod_layers
    kept = [config.tokens_in_layer(layer) for layer in layers]
    kept = kept[:1] if len(set(kept)) == 1 else kept
    dense = copy.deepcopy(config)
    dense.router = "none"
    frames = round(3600 * config.fps)
    dtype = weights[0].dtype
    kv = [_size(kv_bytes(each, frames, frames, dtype.itemsize)) for each in (dense, config)]
    lines = {
        "vision": f"SigLIP, {vision.num_hidden_layers} layers of width "
        f"{vision.hidden_size}, {vision.image_size}x{vision.image_size} pixels in patches of "
        f"{vision.patch_size}",
        "language": f"{text.model_type}, {text.num_hidden_layers} layers of width "
        f"{text.hidden_size}, {text.vocab_size:,} tokens known, {n_added} of them new",
        "frame": f"{config.tokens_per_frame} tokens (class token and {config.pool_grid}x"
        f"{config.pool_grid} patches) and a word, {config.fps:g} frames a second",
        "MoD": f"router {config.router}, {', '.join(map(str, kept))} of "
        f"{config.tokens_per_frame} tokens kept in layers {', '.join(map(str, layers))}"
        if layers
        else "none, every token runs in every layer",
        "weights": f"{sum(w.numel() for w in weights):,} in {str(dtype)[6:]}, "
        + _size(sum(w.numel() * w.itemsize for w in weights)),
        "KV cache": f"{kv[0]} an hour of video dense, {kv[1]} with MoD",
    }
    return [f"{name + ':':<10}{line}" for name, line in lines.items()]


def _size(n_bytes: int) -> str:
    unit, name = (2**30, "GiB") if n_bytes >= 2**30 else (2**20, "MiB")
    return f"{n_bytes / unit:.1f} {name}"
