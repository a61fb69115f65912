"""Qwen2.5-VL and Qwen3-VL: two frames make one step, positions in time, height and width."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mod.families.chat import FrameText
from mod.families.family import Family
from mod.layout import Parts
from mod.places import Places

#: Side of pictures unless the checkpoint's config asks for another; they may have any.
_SIDE = 448


class Qwen25VL(Family):
    """See ``Family``; frames of a stretch lie at one place, and ahead of it in time.

    Source: transformers' ``Qwen2_5_VLModel.get_rope_index``; arXiv 2502.13923.
    """

    content, mark = "video", "<|video_pad|>"
    frames_per_step = 2

    def image_size(self, base: Any, wanted: int | None) -> int:
        """Any multiple of what one token shows: 28 pixels in the published ones, or 32.

        Raises:
            ValueError: ``wanted`` is no such multiple.
        """
        side = wanted or _SIDE
        unit = base.vision_config.patch_size * base.vision_config.spatial_merge_size
        if not isinstance(side, int) or side < unit or side % unit:
            raise ValueError(f"picture_size must be a multiple of {unit} pixels, not {side!r}")
        return int(side)

    def tokens_per_frame(self, base: Any, side: int) -> int:
        """Patches, a square of them merged into one."""
        return self._grid(base, side) ** 2

    def places(self, base: Any, side: int, fps: float) -> Places:
        """Rows and columns from where the stretch begins; time goes on with the seconds."""
        seconds = np.float32(self.frames_per_step / fps)
        interval = seconds * np.float32(base.vision_config.tokens_per_second)
        return self._laid_out(base, side, float(interval))

    def see(self, model: Any, pixels: Tensor) -> Tensor:
        """See ``Family``."""
        patches, grid = self._patches(model, pixels)
        seen = model.model.get_video_features(patches, grid).pooler_output
        steps = len(pixels) // self.frames_per_step
        return torch.cat(seen).view(steps, -1, seen[0].shape[-1])

    def _grid(self, base: Any, side: int) -> int:
        return int(side // (base.vision_config.patch_size * base.vision_config.spatial_merge_size))

    def _laid_out(self, base: Any, side: int, interval: float | None) -> Places:
        grid = self._grid(base, side)
        rows = tuple(row for row in range(grid) for _ in range(grid))
        columns = tuple(range(grid)) * grid
        return Places(((0,) * grid**2, rows, columns), grid, interval)

    def _patches(self, model: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Patches in the order in which they are merged, (patches, values), and their grid.

        Source: transformers' ``Qwen2VLVideoProcessor.patchify``.
        """
        vision = model.config.vision_config
        size, merge, deep = vision.patch_size, vision.spatial_merge_size, self.frames_per_step
        blocks = pixels.shape[-1] // (size * merge)
        cut = pixels.reshape(-1, deep, 3, blocks, merge, size, blocks, merge, size)
        patches = cut.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(-1, 3 * deep * size * size)
        grid = [[len(pixels) // deep, blocks * merge, blocks * merge]]
        return patches, torch.tensor(grid, device=pixels.device)


class Qwen3VL(Qwen25VL):
    """See ``Family``; each step is told its time in words, and the tower speaks to several layers.

    Source: transformers' ``Qwen3VLModel`` and ``Qwen3VLProcessor``; arXiv 2511.21631.
    """

    def places(self, base: Any, side: int, fps: float) -> Places:
        """Rows and columns from where each step lies; time stands still in it."""
        return self._laid_out(base, side, None)

    def see(self, model: Any, pixels: Tensor) -> Tensor:
        """See ``Family``."""
        patches, grid = self._patches(model, pixels)
        seen = model.model.get_video_features(patches, grid)
        parts = [torch.cat(part) for part in (seen.pooler_output, *seen.deepstack_features)]
        steps = len(pixels) // self.frames_per_step
        return torch.cat(parts, dim=-1).view(steps, -1, sum(part.shape[-1] for part in parts))

    def frame_text(self, tokenizer: PreTrainedTokenizerBase, base: Any) -> FrameText:
        """See ``Family``."""
        return _Seconds(base.vision_start_token_id, base.vision_end_token_id)


class _Seconds(FrameText):
    """The time of each step, and marks around it."""

    def __init__(self, start: int, end: int) -> None:
        self._start = start
        self.after = (end,)
        # A byte is a token at most.
        self.most_tokens = 2 + len("<0000000.0 seconds>")

    def before(self, time_s: float) -> Parts:
        """The time, then the mark."""
        return [f"<{time_s:.1f} seconds>", self._start]
