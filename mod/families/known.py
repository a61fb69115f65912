"""The families that can be served, by transformers' names of their model types."""

from __future__ import annotations

from mod.families.family import Family
from mod.families.idefics import Idefics3, SmolVLM
from mod.families.llava_onevision import LlavaOneVision

FAMILIES: dict[str, Family] = {
    "idefics3": Idefics3(),
    "llava_onevision": LlavaOneVision(),
    "smolvlm": SmolVLM(),
}
