"""What the routes work with; made once where the gateway starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from serve.calls import Sessions
from serve.chat import Answered
from serve.observe.own import Metrics, OwnMetrics
from serve.settings import ApiSettings as ApiSettings


@dataclass(frozen=True)
class ModelInfo:
    """The model that the service holds.

    Attributes:
        side: height and width of the pictures it takes, in pixels.
        fps: frames a second that it was trained on.
        router: what chooses the share ``keep_ratio`` of them that run in MoD layers.
        tokens_per_frame: vision tokens of a frame, or of the several that make a step.
        frames_per_step: frames that the model sees as one.
        quantize: what the decoder's weights were turned into, if anything.
        digest: it makes summaries by rule; ``summary_request`` is how one is asked for.
    """

    name: str
    revision: str
    side: int
    fps: float
    keep_ratio: float
    router: str
    tokens_per_frame: int
    digest: bool
    summary_request: str
    frames_per_step: int = 1
    quantize: str | None = None

    def vision_tokens(self, frames: int) -> int:
        """Vision tokens of some frames that follow each other."""
        return -(-frames // self.frames_per_step) * self.tokens_per_frame


class Answers(Protocol):
    """Answers to text alone."""

    async def chat(self, system: str, text: str, most_tokens: int) -> Answered:
        """See ``serve.replica.Replica.chat``."""

    async def tokens(self, texts: Sequence[str]) -> int:
        """Tokens of ``texts``, in all."""


class Streams(Protocol):
    """Live sources that the service pulls; objects as the API spells them."""

    async def start(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """Begin to pull."""

    async def list(self) -> list[dict[str, Any]]:
        """All that are known."""

    async def get(self, stream: str) -> dict[str, Any] | None:
        """One of them."""

    async def stop(self, stream: str) -> dict[str, Any] | None:
        """End it; its session stays."""


class Jobs(Protocol):
    """Bulk jobs; objects as the API spells them."""

    async def submit(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """Begin one.

        Raises:
            UsageError: it cannot work.
        """

    async def list(self) -> list[dict[str, Any]]:
        """All that are known."""

    async def get(self, job: str) -> dict[str, Any] | None:
        """One of them."""

    async def cancel(self, job: str) -> dict[str, Any] | None:
        """Stop it; it can be resumed."""


class Cluster(Protocol):
    """The replicas."""

    async def state(self) -> dict[str, Any]:
        """As ``serve.routes.cluster.ClusterObject`` spells it."""


@dataclass(frozen=True)
class Context:
    """Everything that routes reach for: ``request.app.state.context``.

    Attributes:
        store: uri of the state store; uploaded files lie under ``files/`` in it.
        metrics: what ``/metrics`` tells.
    """

    sessions: Sessions
    answers: Answers
    model: ModelInfo
    store: str
    settings: ApiSettings = field(default_factory=ApiSettings)
    streams: Streams | None = None
    jobs: Jobs | None = None
    metrics: Metrics = field(default_factory=OwnMetrics)
    cluster: Cluster | None = None
