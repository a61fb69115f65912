"""Configuration of VideoLLM-MoD: a vision tower, a language model and how frames are routed."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, get_args

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

Router = Literal["learned", "bounded", "uniform", "random", "none"]
ClassToken = Literal["first", "last", "none"]
Summarizer = Literal["model", "digest"]
ROUTERS, CLASS_TOKENS, SUMMARIZERS = map(get_args, (Router, ClassToken, Summarizer))


@strict
class VideoLLMMoDConfig(PreTrainedConfig):
    """Everything that fixes the arithmetic of one checkpoint.

    Args:
        vision_config: a ``SiglipVisionConfig`` (or its dict).
        text_config: the config of any decoder-only transformers model (or its dict).
        pool_grid: patch tokens are average-pooled to ``pool_grid x pool_grid`` a frame.
        class_token: where the tower's pooled token stands among a frame's tokens, or ``none``.
        router: ``learned`` is the paper's raw score; ``bounded`` weighs by
            ``1 + 0.2 tanh(score)`` (p-MoD), which starts as the dense model; ``uniform`` and
            ``random`` are the paper's baselines; ``none`` runs every token in every layer.
        keep_ratio: share of a frame's vision tokens that run in a MoD layer.
        mod_layers: indices of the MoD layers; None means interleaved (1, 3, 5, ...).
        always_keep_decision: a frame's last vision token, from which the model decides to
            speak or stay silent, takes one of the kept places in every MoD layer.
        fps: frames a second that the checkpoint was trained on.
        instruction: text that opens a session when the caller gives none.
        summarizer: ``model`` asks the model for summaries; ``digest`` makes them by rule from
            its narrations, for checkpoints that have not learned to.
        summary_request: the question whose answer is a summary of what was seen or read.

    Raises:
        ValueError: a field that cannot work; the message names it.

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
    router: Router = "learned"
    keep_ratio: float = 0.2
    mod_layers: list[int] | None = None
    always_keep_decision: bool = True
    fps: float = 2.0
    silence_token: str = "<|silence|>"
    begin_token: str = "<|begin|>"
    user_token: str = "<|user|>"
    assistant_token: str = "<|assistant|>"
    end_token: str = "<|end|>"
    instruction: str = "Narrate what changes."
    summarizer: Summarizer = "model"
    summary_request: str = "Summarize."
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if not self.tie_word_embeddings:
            self.tie_word_embeddings = bool(self.text_config.tie_word_embeddings)
        if self.mod_layers is None:
            self.mod_layers = list(range(1, self.text_config.num_hidden_layers, 2))

    def validate_routing(self) -> None:
        """Refuse fields that cannot work together; part of the config's own validation."""
        for name, allowed in (
            ("router", ROUTERS),
            ("class_token", CLASS_TOKENS),
            ("summarizer", SUMMARIZERS),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, not {getattr(self, name)!r}")
        if not 0.0 < self.keep_ratio <= 1.0:
            raise ValueError(f"keep_ratio must lie in (0, 1], not {self.keep_ratio}")
        if self.pool_grid < 1:
            raise ValueError(f"pool_grid must be at least 1, not {self.pool_grid}")
        if self.fps <= 0:
            raise ValueError(f"fps must be above 0, not {self.fps}")
        n_layers = self.text_config.num_hidden_layers
        for layer in self.mod_layers or []:
            if not 0 <= layer < n_layers:
                raise ValueError(f"mod_layers names layer {layer}; the model has {n_layers}")
        kinds = getattr(self.text_config, "layer_types", None) or []
        if any(kind != "full_attention" for kind in kinds):
            raise ValueError("text_config.layer_types must all be full_attention")

    @property
    def tokens_per_frame(self) -> int:
        """Vision tokens of one frame: the pooled grid and, unless ``none``, the class token."""
        return self.pool_grid**2 + (self.class_token != "none")

    @property
    def kept_per_frame(self) -> int:
        """Vision tokens of one frame that run in a MoD layer (at least one)."""
        if self.router == "none":
            return self.tokens_per_frame
        return max(1, round(self.keep_ratio * self.tokens_per_frame))

    def tokens_in_layer(self, layer: int) -> int:
        """Vision tokens of one frame that run, and write keys and values, in ``layer``."""
        return self.kept_per_frame if layer in (self.mod_layers or ()) else self.tokens_per_frame
