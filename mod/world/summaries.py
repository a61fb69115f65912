"""Summaries of the generated world: a rule from narrations, or from summaries, to one sentence."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_SUMMARY = re.compile(
    r"It opens on an? (?P<opens>[a-z ]+?) scene and ends on an? (?P<ends>[a-z ]+?) scene, "
    r"with (?P<cuts>no cuts|one cut|a few cuts|many cuts); "
    r"the camera (?P<camera>holds still|moves)\."
)
_SCENE = re.compile(r"(?:^|Cut to )an? ([a-z ]+?) scene\.$", re.IGNORECASE)
_TURN = re.compile(r"The picture (?:turns|fades to) ([a-z ]+)\.$")
_CUT_WORDS = ((0, "no cuts"), (1, "one cut"), (4, "a few cuts"))
#: How many cuts a word stands for when summaries are added up.
_CUT_COUNT = {"no cuts": 0, "one cut": 1, "a few cuts": 3, "many cuts": 6}


@dataclass(frozen=True)
class Digest:
    """What a summary says: looks at both ends, number of cuts, whether the camera moved."""

    opens: str
    ends: str
    cuts: int
    moves: bool

    @property
    def sentence(self) -> str:
        """The summary as text."""
        cuts = next((word for bound, word in _CUT_WORDS if self.cuts <= bound), "many cuts")
        camera = "moves" if self.moves else "holds still"
        return (
            f"It opens on {_a(self.opens)} scene and ends on {_a(self.ends)} scene, "
            f"with {cuts}; the camera {camera}."
        )


def digest(texts: Sequence[str]) -> Digest:
    """Summarize narrations, or summaries of consecutive parts, in order of time.

    Raises:
        ValueError: nothing in ``texts`` says how the video looks.
    """
    looks: list[str] = []
    cuts = 0
    moves = False
    for text in texts:
        if found := _SUMMARY.match(text):
            looks += [found["opens"], found["ends"]]
            cuts += _CUT_COUNT[found["cuts"]]
            moves |= found["camera"] == "moves"
        elif found := _SCENE.search(text):
            looks.append(found[1])
            cuts += text.startswith("Cut")
        elif found := _TURN.search(text):
            looks.append(found[1])
        elif text.startswith("The camera"):
            moves |= not text.endswith("holds still.")
    if not looks:
        raise ValueError("no narration says how the video looks")
    return Digest(looks[0], looks[-1], cuts, moves)


def _a(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"
