"""Configuration of VideoLLM-MoD: a vision tower, a language model and how frames are routed."""

# Without postponed annotations: ``strict`` checks values against the types themselves.
import math
from dataclasses import field
from typing import Any, ClassVar, Literal, get_args

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from mod.part_configs import (
    check_given,
    check_positive,
    check_rope,
    check_text,
    check_vision,
)
from mod.routers import Router, check_layers, mean_ratio, placed

ClassToken = Literal["first", "last", "none"]
Summarizer = Literal["model", "digest"]
StreamKind = Literal["marks", "online"]
LAYOUTS = get_args(StreamKind)
KeepSchedule = Literal["constant", "shifted_cosine"]
SCHEDULES = get_args(KeepSchedule)


@strict
class RoutedConfig(PreTrainedConfig):
    """What every streaming model here is told beside its weights: routing, and how it is used.

    Args:
        router: ``learned`` is the paper's raw score; ``bounded`` weighs by
            ``1 + 0.2 tanh(score)`` (p-MoD), which starts as the dense model; ``uniform`` and
            ``random`` are the paper's baselines; ``redundancy``, ``norm`` and ``attention`` need
            no training: they keep what differs most from the frame before, has the largest norm,
            or is most attended to by the frame's last token (:mod:`mod.routing`); ``skip`` runs
            none of them in the MoD layers, which makes LayerSkip of ``interleaved`` and
            EarlyExit of ``after-2``; ``none`` runs every token in every layer.
        keep_ratio: share of a frame's vision tokens that run in a MoD layer.
        keep_schedule: ``constant``, or p-MoD's ``shifted_cosine`` falling over the depth, with
            ``keep_ratio`` its mean over the MoD layers.
        keep_ratios: one ratio for each of ``mod_layers``; overrides both.
        mod_layers: indices of the MoD layers, or a placement: ``interleaved`` (1, 3, 5, ...),
            ``all``, either one with ``-deep`` to leave the first two layers full, or ``after-N``
            to leave the first N full.
        always_keep_decision: a frame's last vision token, from which the model decides to
            speak or stay silent, takes one of the kept places in every MoD layer.
        frame_difference: the tower sees, beside a frame, its difference to the frame before, in
            three further channels; motion and cuts then show in the features of one frame.
        fps: frames a second that the checkpoint was trained on.
        instruction: text that opens a session when the caller gives none.
        summarizer: ``model`` asks the model for summaries; ``digest`` makes them by rule from
            its narrations, for checkpoints that have not learned to.
        summary_request: the question whose answer is a summary of what was seen or read.
    """

    router: Router = "learned"
    keep_ratio: float | int = 0.2
    keep_schedule: KeepSchedule = "constant"
    keep_ratios: list[float | int] | None = None
    mod_layers: Any = "interleaved"
    always_keep_decision: bool = True
    frame_difference: bool = False
    fps: float | int = 2.0
    instruction: str = "Narrate what changes."
    summarizer: Summarizer = "model"
    summary_request: str = "Summarize."
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        check_given(vars(self))
        super().__post_init__(**kwargs)
        if isinstance(self.mod_layers, str):
            self.mod_layers = placed(self.mod_layers, self.get_text_config().num_hidden_layers)
        self.check()

    @property
    def image_size(self) -> int:
        """Side of the pictures that it takes, in pixels."""
        raise NotImplementedError

    @property
    def tokens_per_frame(self) -> int:
        """Vision tokens of one frame."""
        raise NotImplementedError

    @property
    def token_grid(self) -> tuple[int, int, int]:
        """How a frame's tokens lie in its picture: the first that does, rows and columns.

        Rows follow each other. What is no square is told as a single row.
        """
        n = self.tokens_per_frame
        side = math.isqrt(n)
        return (0, side, side) if side * side == n else (0, 1, n)

    @property
    def frames_per_step(self) -> int:
        """Frames that the model sees as one; their tokens are those of one frame."""
        return 1

    @property
    def context(self) -> int | None:
        """Tokens that the model was made for; None where it has learned to go on beyond."""
        return None

    def steps(self, frames: int) -> int:
        """How many steps some frames that follow each other make; the last may be short of some."""
        return -(-frames // self.frames_per_step)

    def vision_tokens(self, frames: int) -> int:
        """Vision tokens of some frames that follow each other."""
        return self.steps(frames) * self.tokens_per_frame

    def check(self) -> None:
        """Refuse fields that cannot work, alone or together.

        Raises:
            ValueError: names the field.
        """
        if not 0.0 < self.keep_ratio <= 1.0:
            raise ValueError(f"keep_ratio must lie in (0, 1], not {self.keep_ratio}")
        check_positive("fps", self.fps)
        check_rope(self.get_text_config())
        check_layers(self.mod_layers, self.get_text_config().num_hidden_layers)
        if self.keep_ratios is not None:
            if len(self.keep_ratios) != len(self.mod_layers):
                raise ValueError(
                    f"keep_ratios has {len(self.keep_ratios)} entries for "
                    f"{len(self.mod_layers)} mod_layers"
                )
            if not all(0.0 < ratio <= 1.0 for ratio in self.keep_ratios):
                raise ValueError(f"keep_ratios must lie in (0, 1], not {self.keep_ratios}")

    @property
    def mean_keep_ratio(self) -> float:
        """Share of a frame's vision tokens that run in MoD layers, the mean over those."""
        return float(mean_ratio(self.keep_ratio, self.keep_ratios))

    def tokens_in_layer(self, layer: int) -> int:
        """Vision tokens of one frame that run, and write keys and values, in ``layer``."""
        if self.router == "none" or layer not in self.mod_layers:
            return self.tokens_per_frame
        if self.router == "skip":
            return int(self.always_keep_decision)
        return max(1, round(self._ratio_in_layer(layer) * self.tokens_per_frame))

    def _ratio_in_layer(self, layer: int) -> float:
        if self.keep_ratios is not None:
            return self.keep_ratios[self.mod_layers.index(layer)]
        if self.keep_schedule == "constant":
            return self.keep_ratio
        depths = [i / max(1, self.get_text_config().num_hidden_layers - 1) for i in self.mod_layers]
        return _shifted_cosine(depths, self.keep_ratio, 1 / self.tokens_per_frame)[
            self.mod_layers.index(layer)
        ]


@strict
class VideoLLMMoDConfig(RoutedConfig):
    """Everything that fixes the arithmetic of one checkpoint.

    Args:
        vision_config: a ``SiglipVisionConfig`` (or its dict).
        text_config: the config of any decoder-only transformers model (or its dict).
        pool_grid: patch tokens are average-pooled to ``pool_grid x pool_grid`` a frame.
        class_token: where the tower's pooled token stands among a frame's tokens, or ``none``.
        layout: of the stream; ``marks`` is ours (:mod:`mod.layout`), ``online`` that of
            VideoLLM-online as it was published.

    Raises:
        ValueError: a field that cannot work; the message names it.
        StrictDataclassError: a field of a wrong type; the message names it.

    Source: VideoLLM-MoD (arXiv 2408.16730) for routing, VideoLLM-online for the stream format.
    """

    model_type = "videollm_mod"
    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {
        "vision_config": SubConfigSpec(config_class=AutoConfig, model_type="siglip_vision_model"),
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="llama"),
    }

    vision_config: Any = None
    text_config: Any = None
    pool_grid: int = 3
    class_token: ClassToken = "first"
    layout: StreamKind = "marks"
    silence_token: str = "<|silence|>"
    begin_token: str = "<|begin|>"
    user_token: str = "<|user|>"
    assistant_token: str = "<|assistant|>"
    end_token: str = "<|end|>"

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if not self.tie_word_embeddings:
            self.tie_word_embeddings = bool(self.text_config.tie_word_embeddings)

    @property
    def image_size(self) -> int:
        """Side of the pictures that it takes, in pixels."""
        return int(self.vision_config.image_size)

    def check(self) -> None:
        """See ``RoutedConfig``."""
        if self.pool_grid < 1:
            raise ValueError(f"pool_grid must be at least 1, not {self.pool_grid}")
        check_vision(
            self.vision_config,
            channels=6 if self.frame_difference else 3,
            pool_grid=self.pool_grid,
            pooled=self.class_token != "none",
        )
        check_text(self.text_config)
        self._check_marks()
        super().check()

    def _check_marks(self) -> None:
        """Silence is told from everything else by its token alone."""
        names = ["begin_token", "end_token", "silence_token"]
        if self.layout == "marks":
            names += ["user_token", "assistant_token"]
        for name in names:
            token = getattr(self, name)
            if not token:
                raise ValueError(f"{name} must not be empty")
            if token == self.silence_token and name != "silence_token":
                raise ValueError(f"silence_token {token!r} is the {name} too")

    @property
    def tokens_per_frame(self) -> int:
        """Vision tokens of one frame: the pooled grid and, unless ``none``, the class token."""
        return self.pool_grid**2 + (self.class_token != "none")

    @property
    def token_grid(self) -> tuple[int, int, int]:
        """See ``RoutedConfig``; the class token stands for the whole picture."""
        return int(self.class_token == "first"), self.pool_grid, self.pool_grid


@strict
class AdoptedConfig(RoutedConfig):
    """An open video language model as it is published, and how this project streams it.

    Args:
        base_config: the checkpoint's own config (or its dict).
        picture_size: side of its pictures, in pixels.
        frame_tokens: vision tokens of a frame, or of the several that make a step.
        step_frames: frames that it sees as one.
        image_mean, image_std: of its pictures' channels, which lie in 0-1 before.
        ask: what it is asked in order to narrate, since it never learned to stay silent.
        ask_every_s: seconds after which it is asked at the latest.
        ask_change: mean difference of a frame to the one before (0-1) at which it is asked.
    """

    model_type = "adopted_video_lm"
    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {
        "base_config": SubConfigSpec(config_class=AutoConfig, model_type="llava_onevision"),
    }

    base_config: Any = None
    picture_size: int = 384
    frame_tokens: int = 1
    step_frames: int = 1
    image_mean: list[float] = field(default_factory=lambda: [0.5] * 3)
    image_std: list[float] = field(default_factory=lambda: [0.5] * 3)
    ask: str = "Describe in one short sentence what is happening now."
    ask_every_s: float | int = 5.0
    ask_change: float | int = 0.1

    @property
    def text_config(self) -> Any:
        """Config of the language model."""
        return self.base_config.get_text_config()

    @property
    def image_size(self) -> int:
        """See ``RoutedConfig``."""
        return self.picture_size

    @property
    def tokens_per_frame(self) -> int:
        """See ``RoutedConfig``."""
        return self.frame_tokens

    @property
    def frames_per_step(self) -> int:
        """See ``RoutedConfig``."""
        return self.step_frames

    @property
    def context(self) -> int | None:
        """See ``RoutedConfig``."""
        return getattr(self.text_config, "max_position_embeddings", None)

    def check(self) -> None:
        """See ``RoutedConfig``."""
        if self.ask_every_s <= 0:
            raise ValueError(f"ask_every_s must be above 0, not {self.ask_every_s}")
        super().check()


def _shifted_cosine(depths: list[float], mean: float, least: float) -> list[float]:
    """Half a cosine over ``depths`` (0-1), shifted, clipped to ``least``-1, of mean ``mean``.

    Source: p-MoD (arXiv 2412.04449), section 3.3.
    """
    falling = [0.5 * (1.0 + math.cos(math.pi * depth)) for depth in depths]
    low, high = -1.0, 1.0
    ratios = falling
    for _ in range(50):
        shift = (low + high) / 2
        ratios = [min(1.0, max(least, value + shift)) for value in falling]
        low, high = (shift, high) if sum(ratios) < mean * len(ratios) else (low, shift)
    return ratios
