"""Questions that a narrator of the generated world can answer from what it said."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from mod.world.summaries import digest
from mod.world.words import MOTIONS

_NUMBERS = ("No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine")


def how_it_began(said: Sequence[str]) -> str:
    """The look of the first scene."""
    return f"It was {digest(said).opens}."


def how_it_looks(said: Sequence[str]) -> str:
    """The look announced last."""
    return f"It is {digest(said).ends}."


def how_many_cuts(said: Sequence[str]) -> str:
    """The number of cuts in words, up to nine."""
    return _times(sum(text.startswith("Cut to") for text in said), "cut")


def _times(count: int, what: str) -> str:
    number = _NUMBERS[count] if count < len(_NUMBERS) else "Many"
    return f"{number} {what}{'' if count == 1 else 's'}."


def what_the_camera_did(said: Sequence[str]) -> str:
    """The motion narrated last."""
    found = [text for text in said if text in MOTIONS.values()]
    return found[-1] if found else "Nothing."


def what_appeared_first(said: Sequence[str]) -> str:
    """The first thing that appeared."""
    found = [text for text in said if text.endswith(" appears.")]
    return found[0].replace(" appears", "") if found else "Nothing."


def how_many_appeared(said: Sequence[str]) -> str:
    """How often something appeared, in words, up to nine times."""
    return _times(sum(text.endswith(" appears.") for text in said), "thing")


def what_met_last(said: Sequence[str]) -> str:
    """The last meeting, as it was narrated."""
    found = [text for text in said if " meets " in text]
    return found[-1] if found else "Nothing."


#: Each question and the rule that answers it from the narrations so far.
QUESTIONS: Mapping[str, Callable[[Sequence[str]], str]] = MappingProxyType(
    {
        "How did it begin?": how_it_began,
        "How does it look now?": how_it_looks,
        "How many cuts so far?": how_many_cuts,
        "What did the camera do last?": what_the_camera_did,
        "What appeared first?": what_appeared_first,
        "How many things appeared?": how_many_appeared,
        "What met last?": what_met_last,
    }
)
