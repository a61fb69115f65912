"""What transformers itself makes of a checkpoint: prompts, greedy answers, losses.

It needs torchvision; see ``infra.openmodels.reference``, whose other process asks it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch import nn


def frames_of(n: int, side: int, seed: int) -> NDArray[np.uint8]:
    """``n`` pictures (n, side, side, 3) of 7 x 7 fields; a third of them change each time."""
    random = np.random.default_rng(seed)
    fields = random.integers(0, 256, (7, 7, 3))
    where = np.arange(side) * 7 // side
    pictures = []
    for _ in range(n):
        pictures.append(fields[where][:, where])
        changes = random.random((7, 7, 1)) < 1 / 3
        fields = np.where(changes, random.integers(0, 256, (7, 7, 3)), fields)
    return np.stack(pictures).astype(np.uint8)


def side_of(folder: Path) -> int:
    """Side of the square pictures that ``reference`` shows without resizing, in pixels."""
    processor = transformers.AutoProcessor.from_pretrained(folder)
    if hasattr(processor.image_processor, "max_image_size"):
        return int(processor.image_processor.max_image_size["longest_edge"])
    seen = processor.video_processor
    if hasattr(seen, "merge_size"):
        return int(3 * seen.patch_size * seen.merge_size)
    return int(seen.size["height"])


def reference(
    folder: Path,
    frames: NDArray[np.uint8],
    question: str,
    fps: float,
    max_new_tokens: int = 24,
    quantize: str | None = None,
) -> list[int]:
    """Greedy tokens of transformers' ``generate``, the one that ends them included if it comes.

    Args:
        frames: (n, side, side, 3), all that there are of a video.
        fps: how many of them a second has.
        quantize: bits of the decoder's linear maps, all but those of tower, connector and head.
    """
    inputs = _inputs(folder, frames, question, fps)
    options: dict[str, Any] = {}
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder).eval()
    if quantize:
        _unpack_plainly()
        names = [name for name, part in model.named_modules() if isinstance(part, nn.Linear)]
        apart = [n for n in names if "visi" in n or "visual" in n or ".layers." not in n]
        whole = [f"{name}$" for name in apart]
        config = transformers.QuantoConfig(weights=quantize, modules_to_not_convert=whole)
        options = {"quantization_config": config}
        model = transformers.AutoModelForImageTextToText.from_pretrained(folder, **options).eval()
    tokens = model.generate(**inputs, do_sample=False, max_new_tokens=max_new_tokens)
    answer: list[int] = tokens[0, inputs["input_ids"].shape[1] :].tolist()
    return answer


@cache
def _unpack_plainly() -> Any:
    """Have optimum-quanto divide, where it would compile a kernel of its own for a minute."""
    import optimum.quanto  # noqa: F401  # registers what is replaced

    def unpack(packed: torch.Tensor, bits: int) -> torch.Tensor:
        places = [2**low for low in range(0, 8, bits)]
        return torch.cat([torch.div(packed, n, rounding_mode="floor") % 2**bits for n in places])

    replaced: Any = torch.library.Library("quanto", "IMPL")  # type: ignore[no-untyped-call]
    replaced.impl("unpack", unpack, "CPU")
    return replaced


def loss(
    folder: Path, frames: NDArray[np.uint8], question: str, answer: Sequence[int], fps: float
) -> float:
    """Mean negative log-likelihood that transformers gives the tokens of an answer."""
    inputs = _inputs(folder, frames, question, fps)
    more = torch.tensor([list(answer)])
    n = inputs["input_ids"].shape[1]
    inputs["input_ids"] = torch.cat([inputs["input_ids"], more], dim=1)
    for name in ("attention_mask", "mm_token_type_ids"):
        if name in inputs:
            rest = torch.full_like(more, int(name == "attention_mask"))
            inputs[name] = torch.cat([inputs[name], rest.to(inputs[name].dtype)], dim=1)
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder).eval()
    with torch.inference_mode():
        logits = model(**inputs).logits[0, n - 1 : -1]
    return float(nn.functional.cross_entropy(logits.float(), more[0]))


def prompt_ids(folder: Path, frames: NDArray[np.uint8], question: str, fps: float) -> list[int]:
    """The ids that ``reference`` starts from; see there."""
    ids: list[int] = _inputs(folder, frames, question, fps)["input_ids"][0].tolist()
    return ids


def _inputs(folder: Path, frames: NDArray[np.uint8], question: str, fps: float) -> Any:
    processor = transformers.AutoProcessor.from_pretrained(folder)
    n, height, width, _ = frames.shape
    shown: list[dict[str, Any]]
    if hasattr(processor, "video_processor"):
        shown = [{"type": "video", "video": frames}]
        options: dict[str, Any] = {
            "do_sample_frames": False,
            "video_metadata": [
                {
                    "total_num_frames": n,
                    "fps": fps,
                    "duration": n / fps,
                    "frames_indices": list(range(n)),
                    "height": height,
                    "width": width,
                }
            ],
        }
    else:
        shown = [{"type": "image", "image": frame} for frame in frames]
        # As published, it enlarges pictures by four, to split them.
        side = processor.image_processor.max_image_size
        options = {"do_image_splitting": False, "size": dict(side)}
    return processor.apply_chat_template(
        [{"role": "user", "content": [*shown, {"type": "text", "text": question}]}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs=options,
    )
