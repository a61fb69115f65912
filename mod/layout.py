"""How text and frames are laid out in one stream of tokens, and the tokenizer that does it.

In ours a session opens with ``begin`` and an instruction. After each frame's vision tokens comes
either the silence token or a narration closed by ``end``. A question is ``user`` text
``assistant``, its answer closed by ``end``. Source: VideoLLM-online's streaming dialogue format.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from mod.asking import Asking
from mod.config import VideoLLMMoDConfig

#: Text in parts: token ids of marks, and plain text between them that is tokenized together.
Parts = Sequence[int | str]


#: The system message that VideoLLM-online's checkpoints were taught with.
ONLINE_INSTRUCTION = (
    "A multimodal AI assistant is helping users with some activities. Below is their conversation, "
    "interleaved with the list of video frames received by the assistant."
)


class Layout(Protocol):
    """How a model wants text and frames laid out in one stream.

    Attributes:
        silence: the token by which it stays silent after a frame; None where it cannot.
        ends: tokens that end what it says.
        speaking: what is fed between a frame and the narration at it, where the model decides to
            speak.
        closing: what follows a narration or answer, up to the next frame or question; ``end`` is
            the first of it.
        beside_tokens: most tokens of text beside one frame, the first one's lead left out.
        asking: when it is asked to narrate; None where it decides itself.
    """

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase: ...

    @property
    def silence(self) -> int | None: ...

    @property
    def end(self) -> int: ...

    @property
    def ends(self) -> frozenset[int]: ...

    @property
    def speaking(self) -> Parts: ...

    @property
    def closing(self) -> Parts: ...

    @property
    def beside_tokens(self) -> int: ...

    @property
    def asking(self) -> Asking | None: ...

    def encode(self, text: str) -> list[int]:
        """Plain text to ids; marks written in the text stay text."""

    def decode(self, ids: Iterable[int]) -> str:
        """Ids to text, marks left out."""

    def ids(self, parts: Parts) -> list[int]:
        """Parts to ids; text is tokenized as far as no mark divides it."""

    def opening(self, instruction: str) -> Parts:
        """What opens a session."""

    def before(
        self, first: int, last: int, fps: float, *, watching: bool, expected: int | None
    ) -> Parts:
        """Text right before a frame, or several that the model sees as one.

        Args:
            first, last: their numbers in the session, from 0.
            fps: frames a second.
            watching: whether frames have come since the opening or the last question.
            expected: how many are to come, where that is known.
        """

    def after(self) -> list[int]:
        """Text right after a frame at which nothing is said."""

    def question(self, text: str, *, watching: bool) -> Parts:
        """A question, up to where its answer starts."""

    def words(self, text: str) -> list[int]:
        """A narration or answer as the model says it, its end included."""


class Words:
    """Text to ids and back, by a tokenizer."""

    tokenizer: PreTrainedTokenizerBase

    def encode(self, text: str) -> list[int]:
        """See ``Layout``, as for all below."""
        ids: list[int] = self.tokenizer.encode(
            text, add_special_tokens=False, split_special_tokens=True
        )
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """See ``Layout``."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=True)
        return text.strip()

    def ids(self, parts: Parts) -> list[int]:
        """See ``Layout``."""
        ids: list[int] = []
        text = ""
        for part in parts:
            if isinstance(part, str):
                text += part
                continue
            ids += self.encode(text) if text else []
            ids.append(part)
            text = ""
        return ids + (self.encode(text) if text else [])


@dataclass(frozen=True)
class StreamLayout(Words):
    """What the layouts of VideoLLM-MoD share: the silence token between frames, and text."""

    beside_tokens: ClassVar[int] = 1
    asking: ClassVar[Asking | None] = None

    tokenizer: PreTrainedTokenizerBase
    begin: int
    silence: int
    end: int

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, config: VideoLLMMoDConfig) -> StreamLayout:
        """The layout that ``config`` names.

        Raises:
            ValueError: the tokenizer lacks one of its marks.
        """
        if config.layout == "online":
            return OnlineLayout(tokenizer, **_marks(tokenizer, config, "begin", "silence", "end"))
        names = ("begin", "silence", "end", "user", "assistant")
        return MarkedLayout(tokenizer, **_marks(tokenizer, config, *names))

    @classmethod
    def load(cls, folder: str | Path, config: VideoLLMMoDConfig) -> StreamLayout:
        """The layout of the checkpoint in ``folder``."""
        return cls.of(AutoTokenizer.from_pretrained(folder), config)

    @property
    def ends(self) -> frozenset[int]:
        """The end mark."""
        return frozenset({self.end})

    @property
    def closing(self) -> list[int]:
        """The end mark."""
        return [self.end]

    @property
    def speaking(self) -> Parts:
        """Nothing."""
        return ()

    def opening(self, instruction: str) -> Parts:
        """See ``Layout``."""
        raise NotImplementedError

    def before(
        self, first: int, last: int, fps: float, *, watching: bool, expected: int | None
    ) -> Parts:
        """Nothing."""
        return ()

    def after(self) -> list[int]:
        """The silence token."""
        return [self.silence]

    def question(self, text: str, *, watching: bool = True) -> Parts:
        """See ``Layout``."""
        raise NotImplementedError

    def words(self, text: str) -> list[int]:
        """A narration or answer as the model says it, its end included."""
        return [*self.encode(text), self.end]


@dataclass(frozen=True)
class MarkedLayout(StreamLayout):
    """Ours: marks of one token each around what is said; a narration follows its frame directly."""

    user: int
    assistant: int

    def opening(self, instruction: str) -> list[int]:
        """The begin mark and the instruction."""
        return [self.begin, *self.encode(instruction)]

    def question(self, text: str, *, watching: bool = True) -> list[int]:
        """The question between the marks of user and assistant."""
        return [self.user, *self.encode(text), self.assistant]


@dataclass(frozen=True)
class OnlineLayout(StreamLayout):
    """See ``mod.layout.Layout``.

    A stretch of frames is ``[`` frame ``,`` frame ``,`` ... ``]``. Where the model expects anything
    but the comma after a frame, the bracket closes and the assistant speaks.

    Source: VideoLLM-online's ``tokenization_live.py`` and its demo's ``inference.py``
    (https://github.com/showlab/videollm-online).
    """

    def opening(self, instruction: str) -> Parts:
        """The system message."""
        return [self.begin, f"{instruction}\n"]

    def before(
        self, first: int, last: int, fps: float, *, watching: bool, expected: int | None
    ) -> Parts:
        """The comma, or the bracket that opens a stretch of frames."""
        return [self.silence] if watching else ["\n["]

    def after(self) -> list[int]:
        """Nothing: the comma goes with the next frame."""
        return []

    @property
    def speaking(self) -> Parts:
        """The bracket that closes it, and the assistant's name."""
        return ["]\nAssistant:"]

    def question(self, text: str, *, watching: bool = True) -> Parts:
        """The user's words, then the assistant's name."""
        return [f"{']' if watching else ''}\nUser: {text}\nAssistant:"]

    def words(self, text: str) -> list[int]:
        """A space comes after the assistant's name."""
        return super().words(f" {text}")


def _marks(
    tokenizer: PreTrainedTokenizerBase, config: VideoLLMMoDConfig, *names: str
) -> dict[str, int]:
    ids = {}
    for name in names:
        token = getattr(config, f"{name}_token")
        found = tokenizer.convert_tokens_to_ids(token)
        if found is None or found == tokenizer.unk_token_id:
            raise ValueError(f"the tokenizer lacks {name}_token {token!r}")
        ids[name] = int(found)
    return ids


def train_tokenizer(
    texts: Iterable[str], config: VideoLLMMoDConfig, vocab_size: int
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer over ``texts`` with the marks of ``config``."""
    marks = [
        getattr(config, f"{n}_token") for n in ("begin", "silence", "user", "assistant", "end")
    ]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=marks,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=config.begin_token,
        eos_token=config.end_token,
        pad_token=config.end_token,
        additional_special_tokens=[config.silence_token, config.user_token, config.assistant_token],
    )
