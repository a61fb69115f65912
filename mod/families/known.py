"""The families that can be served, by transformers' names of their model types."""

from __future__ import annotations

from mod.families.family import Family
from mod.families.idefics import Idefics3, SmolVLM
from mod.families.llava_onevision import LlavaOneVision
from mod.families.qwen_vl import Qwen3VL, Qwen25VL

FAMILIES: dict[str, Family] = {
    "idefics3": Idefics3(),
    "llava_onevision": LlavaOneVision(),
    "qwen2_5_vl": Qwen25VL(),
    "qwen3_vl": Qwen3VL(),
    "smolvlm": SmolVLM(),
}
