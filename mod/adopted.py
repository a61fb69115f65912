"""An open video language model under this project's engine: its classes and weights as they are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from mod.asking import Asking
from mod.config import AdoptedConfig
from mod.decoder import RoutedDecoder
from mod.families.chat import ChatLayout, Template
from mod.families.known import FAMILIES
from mod.places import Places
from mod.weights import ROUTERS, SHARD_SIZE

#: Where checkpoints tell how their pictures are made, the first that is there.
_PROCESSING = (
    "video_preprocessor_config.json",
    "processor_config.json",
    "preprocessor_config.json",
)
#: How files begin that make a checkpoint beside config and weights. A folder may hold others, such
#: as the record of the run that it came of.
_BESIDE = (
    "added_tokens",
    "chat_template",
    "merges",
    "preprocessor_config",
    "processor_config",
    "special_tokens_map",
    "tokenizer",
    "video_preprocessor_config",
    "vocab",
)
#: What a trained router's checkpoint says of it.
_ROUTING = ("router", "keep_ratio", "keep_schedule", "keep_ratios", "mod_layers")
#: What a checkpoint's config may say of how it is used.
_CHOICES = (
    "fps",
    "picture_size",
    "instruction",
    "summary_request",
    "ask",
    "ask_every_s",
    "ask_change",
    *_ROUTING,
)
#: Files that hold a tokenizer's words, any of which will do.
_WORDS = ("tokenizer.json", "tokenizer.model", "vocab.json")


class AdoptedModel(RoutedDecoder):
    """A model of one of ``mod.families.known.FAMILIES``.

    Args:
        base: the model itself, as transformers loads it.
    """

    config_class = AdoptedConfig
    config: AdoptedConfig
    main_input_name = "pixel_values"
    base_model_prefix = ""
    _supports_sdpa = True
    _supports_attention_backend = True

    def __init__(self, config: AdoptedConfig, base: Any) -> None:
        super().__init__(config)
        self.family = FAMILIES[config.base_config.model_type]
        self.base = base
        self.add_routers()

    @property
    def decoder(self) -> Any:
        """See ``RoutedDecoder``."""
        return self.family.decoder(self.base)

    @property
    def head(self) -> Any:
        """See ``RoutedDecoder``."""
        return self.base.get_output_embeddings()

    def get_input_embeddings(self) -> Any:
        """The language model's."""
        return self.base.get_input_embeddings()

    def embed_text(self, token_ids: Tensor) -> Tensor:
        """(tokens,) ids -> (tokens, D); ids behind the vocabulary are the family's own."""
        table = self.get_input_embeddings()
        further = self.family.further_embeddings(self.base)
        n = table.num_embeddings
        out: Tensor = table(token_ids.clamp(max=n - 1))
        if further is None:
            return out
        theirs = further.to(out)[(token_ids - n).clamp(min=0, max=len(further) - 1)]
        return torch.where(token_ids[:, None] >= n, theirs, out)

    def places(self, fps: float) -> Places:
        """See ``RoutedDecoder``."""
        return self.family.places(self.config.base_config, self.config.image_size, fps)

    def encode_frames(self, frames: Tensor, before: Tensor) -> Tensor:
        """See ``RoutedDecoder``; each step is seen alone."""
        weight = self.get_input_embeddings().weight
        mean, std = (
            torch.tensor(values, device=frames.device).view(3, 1, 1)
            for values in (self.config.image_mean, self.config.image_std)
        )
        pixels = (frames.permute(0, 3, 1, 2).float() / 255.0 - mean) / std
        return self.family.see(self.base, pixels.to(weight.dtype))


def adopted_config(folder: Path) -> AdoptedConfig:
    """The config under which the checkpoint in ``folder`` is served.

    What its ``config.json`` says under ``longreel`` takes the place of the defaults.

    Raises:
        ValueError, OSError: its files are missing or do not fit together.
    """
    base = AutoConfig.from_pretrained(folder, local_files_only=True)
    family = FAMILIES[base.model_type]
    chosen = getattr(base, "longreel", {})
    if not isinstance(chosen, dict):
        raise ValueError(f"longreel in its config must be an object, not {chosen!r}")
    chosen = dict(chosen)
    if unknown := sorted(set(chosen) - set(_CHOICES)):
        raise ValueError(f"longreel.{unknown[0]} in its config is none of {', '.join(_CHOICES)}")
    processing = _processing(folder)
    side = family.image_size(base, chosen.pop("picture_size", None))
    return AdoptedConfig(
        base_config=base,
        picture_size=side,
        frame_tokens=family.tokens_per_frame(base, side),
        step_frames=family.frames_per_step,
        image_mean=processing["image_mean"],
        image_std=processing["image_std"],
        **{
            "fps": 1.0,
            "router": "none",
            "keep_ratio": 1.0,
            "instruction": "",
            "summary_request": "Summarize what happens in the video.",
            **chosen,
        },
    )


def load_routers(model: AdoptedModel, folder: Path, kind: str, *, new: bool) -> None:
    """Give ``model`` the router weights in ``folder``.

    Args:
        kind: of router that those were trained as.
        new: where there are none of the model's own kind and layer, they begin untrained.

    Raises:
        ValueError: there are none, or they are of other layers or of another width.
    """
    file, router = folder / ROUTERS, model.config.router
    wanted = model.routers.state_dict()
    # Scores of another kind mean something else.
    found = load_file(file) if file.is_file() and kind == router else {}
    if not new and not found:
        raise ValueError(f"it has no {ROUTERS} with weights of its {router!r} router")
    if not new and set(found) != set(wanted):
        raise ValueError(f"{ROUTERS} has weights of other layers than its config names")
    fitting = {name: weight for name, weight in found.items() if name in wanted}
    for name, weight in fitting.items():
        if weight.shape != wanted[name].shape:
            raise ValueError(f"the weight {name!r} in {ROUTERS} is not as wide as its model")
    for module in model.routers.modules():
        model._init_weights(module)
    model.routers.load_state_dict(fitting, strict=False)


def save_adopted(model: AdoptedModel, weights: dict[str, Tensor], output: Path) -> None:
    """Write a checkpoint that transformers loads as before, with its routers beside it.

    Args:
        weights: of the whole model, updates merged.
        output: an existing folder.
    """
    source = Path(model.config.base_config.name_or_path)
    for file in source.iterdir():
        if file.is_file() and file.name.startswith(_BESIDE):
            shutil.copyfile(file, output / file.name)
    base = {n.removeprefix("base."): w for n, w in weights.items() if n.startswith("base.")}
    model.base.save_pretrained(output, state_dict=base, max_shard_size=SHARD_SIZE)
    routers = {
        n.removeprefix("routers."): w for n, w in weights.items() if n.startswith("routers.")
    }
    save_file({n: w.contiguous() for n, w in routers.items()}, output / ROUTERS)
    file = output / "config.json"
    written = json.loads(file.read_text())
    routing = {name: getattr(model.config, name) for name in _ROUTING}
    written["longreel"] = {**written.get("longreel", {}), **routing}
    written["dtype"] = str(next(iter(base.values())).dtype).removeprefix("torch.")
    file.write_text(json.dumps(written, indent=2))


def adopted_layout(folder: Path, config: AdoptedConfig) -> ChatLayout:
    """How text and frames go together in the checkpoint in ``folder``.

    Raises:
        ValueError, OSError: its tokenizer or template cannot be used.
    """
    family, base = FAMILIES[config.base_config.model_type], config.base_config
    tokenizer = _tokenizer(folder)
    template = family.template(_chat_template(folder) or tokenizer.chat_template)
    if template is None:
        raise ValueError("it brings no chat template")
    ends = _ends(folder, tokenizer, base)
    if max(ends) >= len(tokenizer):
        raise ValueError(
            f"its tokenizer has {len(tokenizer)} tokens and not {max(ends)}, with which answers "
            "end: it is another model's, or lacks a file"
        )
    return ChatLayout(
        tokenizer,
        Template.read(tokenizer, template, family.content, family.mark),
        family.frame_text(tokenizer, base),
        ends,
        Asking(
            question=config.ask,
            every_s=config.ask_every_s,
            change=config.ask_change,
        ),
    )


def _tokenizer(folder: Path) -> Any:
    # Of some families transformers makes an empty one where there is none.
    if not any((folder / name).is_file() for name in _WORDS):
        raise ValueError(f"it brings no tokenizer: none of {', '.join(_WORDS)}")
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as failure:
        # Of any kind that its parsers have.
        raise ValueError(f"its tokenizer cannot be read: {failure}") from None


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text())
    except ValueError as failure:
        raise ValueError(f"{file.name} is no JSON: {failure}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{file.name} is no JSON object")
    return found


def _processing(folder: Path) -> dict[str, Any]:
    for name in _PROCESSING:
        if (folder / name).is_file():
            found = _json(folder / name)
            found = found.get("video_processor") or found.get("image_processor") or found
            if "image_mean" in found:
                return found
    raise ValueError("it brings no processor: none of its files says how pictures are normalised")


def _chat_template(folder: Path) -> str | None:
    """What the processor brings; older checkpoints keep it as JSON."""
    written = folder / "chat_template.jinja"
    if written.is_file():
        return written.read_text()
    older = folder / "chat_template.json"
    if older.is_file():
        return str(_json(older).get("chat_template") or "") or None
    return None


def _ends(folder: Path, tokenizer: Any, base: Any) -> frozenset[int]:
    """With what generation ends: as the checkpoint says, and at its tokenizer's end."""
    try:
        said = GenerationConfig.from_pretrained(folder, local_files_only=True).eos_token_id
    except OSError:
        said = base.get_text_config().eos_token_id
    ends = said if isinstance(said, list) else [said]
    return frozenset(end for end in (*ends, tokenizer.eos_token_id) if end is not None)
