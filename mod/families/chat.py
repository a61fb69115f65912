"""The layout of a chat model: its own template around frames, questions and answers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from mod.asking import Asking
from mod.layout import Parts, Words

#: Stand for what is said in a rendered template; no template has these characters.
_SYSTEM, _FIRST, _ANSWER, _SECOND = "\ue000", "\ue001", "\ue002", "\ue003"


class FrameText:
    """The text that a family puts around frames; this one puts none."""

    #: The most tokens before and after one frame.
    most_tokens = 0
    #: After the last of consecutive frames.
    end: Parts = ()
    #: After each frame.
    after: tuple[int, ...] = ()

    def begin(self, expected: int | None, fps: float) -> Parts:
        """Before the first of consecutive frames, of which ``expected`` are to come."""
        return ()

    def before(self, time_s: float) -> Parts:
        """Before the frame at ``time_s``, or several of which it is the mean time."""
        return ()


@dataclass(frozen=True)
class Template:
    """A checkpoint's chat template, as far as it frames what is said; all in text.

    Attributes:
        head: what opens a conversation, up to the first user's turn; ``system`` with an
            instruction, which ``_SYSTEM`` stands for.
        blind, seen: in a user's turn, before its text, and before its frames.
        between: from frames to the text that follows them.
        tail: from a user's text to where the answer starts.
        answering: what the answer itself begins with, such as a space.
        closing: from an answer to the next turn of the user.
    """

    head: str
    system: str
    blind: str
    seen: str
    between: str
    tail: str
    answering: str
    closing: str

    @classmethod
    def read(
        cls, tokenizer: PreTrainedTokenizerBase, template: str, content: str, mark: str
    ) -> Template:
        """Find out by rendering it.

        Args:
            template: Jinja, as checkpoints bring it.
            content: what it calls frames: ``video``, or ``image`` where it knows no other.
            mark: what it writes for them.

        Raises:
            ValueError: it cannot be rendered, or does not write one thing after the other.
        """

        def rendered(*messages: dict[str, Any]) -> str:
            try:
                text: str = tokenizer.apply_chat_template(
                    list(messages),
                    chat_template=template,
                    tokenize=False,
                    add_generation_prompt=True,
                )
            except (TemplateError, TypeError) as failure:
                raise ValueError(f"its chat template cannot be used: {failure}") from None
            return text

        def user(text: str, *, sees: bool) -> dict[str, Any]:
            frames = [{"type": content}] if sees else []
            return _message("user", [*frames, {"type": "text", "text": text}])

        answer = _message("assistant", [{"type": "text", "text": _ANSWER}])
        system = _message("system", [{"type": "text", "text": _SYSTEM}])
        seen = rendered(user(_FIRST, sees=True), answer, user(_SECOND, sees=False))
        blind = rendered(user(_FIRST, sees=False), answer, user(_SECOND, sees=True))
        told = rendered(system, user(_FIRST, sees=False))
        before = _between(seen, None, mark), _between(blind, None, _FIRST)
        turn = _between(blind, _ANSWER, mark), _between(seen, _ANSWER, _SECOND)
        head, closing = _common(*before), _common(*turn)
        tail, answered = _between(seen, _SECOND, None), _between(seen, _FIRST, _ANSWER)
        gap = before[1].removeprefix(head)
        with_system = _between(told, None, _FIRST)
        if _SYSTEM not in with_system:
            raise ValueError("its chat template has no place for an instruction")
        return cls(
            head,
            with_system.removesuffix(gap),
            gap,
            before[0].removeprefix(head),
            _between(seen, mark, _FIRST),
            tail,
            answered.removeprefix(tail) if answered.startswith(tail) else "",
            closing,
        )


class ChatLayout(Words):
    """See ``mod.layout.Layout``: a conversation in whose user's turns frames come one by one.

    Args:
        template: of the checkpoint.
        frames: text around frames.
        ends: tokens with which the model ends what it says.
        asking: when it is asked to narrate.
    """

    silence: int | None = None
    #: It never decides to; see ``asking``.
    speaking: Parts = ()

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template: Template,
        frames: FrameText,
        ends: frozenset[int],
        asking: Asking,
    ) -> None:
        self.tokenizer, self.ends, self.asking = tokenizer, ends, asking
        self._template, self._frames = template, frames
        self.beside_tokens = frames.most_tokens
        names = sorted(map(str, tokenizer.get_added_vocab()), key=len, reverse=True)
        self._marks = re.compile("(" + "|".join(map(re.escape, names)) + ")") if names else None
        self.closing = self._parts(template.closing)
        self.end = next((part for part in self.closing if isinstance(part, int)), min(ends))

    def opening(self, instruction: str) -> Parts:
        """The head of the conversation; an empty instruction leaves the template's own."""
        if not instruction:
            return self._parts(self._template.head)
        before, _, after = self._template.system.partition(_SYSTEM)
        return [*self._parts(before), instruction, *self._parts(after)]

    def before(
        self, first: int, last: int, fps: float, *, watching: bool, expected: int | None
    ) -> Parts:
        """What the family writes before a frame, and before the first of a turn."""
        before = self._frames.before((first / fps + last / fps) / 2)
        if watching:
            return before
        seen = self._parts(self._template.seen)
        return [*seen, *self._frames.begin(expected, fps), *before]

    def after(self) -> list[int]:
        """What the family writes after a frame."""
        return list(self._frames.after)

    def question(self, text: str, *, watching: bool) -> Parts:
        """The user's words, after the frames of the turn if there were any."""
        blind, between = self._parts(self._template.blind), self._parts(self._template.between)
        lead = [*self._frames.end, *between] if watching else blind
        return [*lead, text, *self._parts(self._template.tail)]

    def words(self, text: str) -> list[int]:
        """The answer as the template writes it."""
        return [*self.encode(f"{self._template.answering}{text}"), self.end]

    def _parts(self, text: str) -> list[int | str]:
        """A piece of the template, its marks as ids."""
        pieces = self._marks.split(text) if self._marks else [text]
        return [
            self.tokenizer.convert_tokens_to_ids(piece) if number % 2 else piece
            for number, piece in enumerate(pieces)
            if piece
        ]


def _message(role: str, content: list[dict[str, str]]) -> dict[str, Any]:
    return {"role": role, "content": content}


def _between(text: str, first: str | None, last: str | None) -> str:
    """What stands between two things in ``text``; None is its beginning or end."""
    if first is not None:
        _, found, text = text.partition(first)
        if not found:
            raise ValueError("its chat template does not write all that is said")
    if last is None:
        return text
    text, found, _ = text.partition(last)
    if not found:
        raise ValueError("its chat template does not write all that is said")
    return text


def _common(one: str, other: str) -> str:
    """The longest beginning of both."""
    same = 0
    while same < min(len(one), len(other)) and one[same] == other[same]:
        same += 1
    return one[:same]
