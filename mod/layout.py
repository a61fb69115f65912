"""How text and frames are laid out in one stream of tokens, and the tokenizer that does it.

A session opens with ``begin`` and an instruction. After each frame's vision tokens comes either
the silence token or a narration closed by ``end``. A question is ``user`` text ``assistant``,
its answer closed by ``end``. Source: VideoLLM-online's streaming dialogue format.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from mod.config import VideoLLMMoDConfig


@dataclass(frozen=True)
class StreamLayout:
    """Token ids of the stream's marks, and text to ids and back."""

    tokenizer: PreTrainedTokenizerBase
    begin: int
    silence: int
    user: int
    assistant: int
    end: int

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, config: VideoLLMMoDConfig) -> StreamLayout:
        """Look up the marks named in ``config``.

        Raises:
            ValueError: the tokenizer lacks one of them.
        """
        ids = {}
        for name in ("begin", "silence", "user", "assistant", "end"):
            token = getattr(config, f"{name}_token")
            found = tokenizer.convert_tokens_to_ids(token)
            if found is None or found == tokenizer.unk_token_id:
                raise ValueError(f"the tokenizer lacks {name}_token {token!r}")
            ids[name] = int(found)
        return cls(tokenizer, **ids)

    @classmethod
    def load(cls, folder: str | Path, config: VideoLLMMoDConfig) -> StreamLayout:
        """The layout of the checkpoint in ``folder``."""
        return cls.of(AutoTokenizer.from_pretrained(folder), config)

    def encode(self, text: str) -> list[int]:
        """Plain text to ids; marks written in the text stay text."""
        ids: list[int] = self.tokenizer.encode(
            text, add_special_tokens=False, split_special_tokens=True
        )
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Ids to text, marks left out."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=True)
        return text.strip()

    def opening(self, instruction: str) -> list[int]:
        """Ids that open a session."""
        return [self.begin, *self.encode(instruction)]

    def question(self, text: str) -> list[int]:
        """Ids of a question, up to where its answer starts."""
        return [self.user, *self.encode(text), self.assistant]


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
