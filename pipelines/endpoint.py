"""A text model behind an OpenAI-compatible endpoint, as the summarizer of a job."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx

from longreel.errors import LongreelError, UsageError
from pipelines.reduce import Node

ATTEMPTS, FIRST_PAUSE_S, LONGEST_PAUSE_S = 5, 1.0, 30.0
CONNECT_TIMEOUT_S, ANSWER_TIMEOUT_S = 5.0, 300.0
#: Bound on one summary, in tokens.
MAX_TOKENS = 400
_TASK = (
    "You are given what was seen in consecutive parts of one video, in order of time; times are "
    "seconds from its start. Write one plain summary of them in at most four sentences: what "
    "happens and in which order. Say nothing that is not in the text, and do not mention the text."
)
_BUSY = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Endpoint:
    """Where a text model is asked.

    Attributes:
        url: base address, such as ``http://host:8000/v1``.
        model: its name there.
        key: sent as a bearer token where there is one; never shown or stored.
    """

    url: str
    model: str
    key: str | None = field(default=None, repr=False)

    def summarize(self, nodes: Sequence[Node]) -> str:
        """One summary of consecutive parts of a video.

        Raises:
            LongreelError: the endpoint refuses, or does not answer however often it is asked.
        """
        parts = [f"{n.start_s:.1f} to {n.end_s:.1f} s:\n{n.text}" for n in nodes]
        request = {
            "model": self.model,
            "messages": [
                {"role": "system", "content": _TASK},
                {"role": "user", "content": "\n\n".join(parts)},
            ],
            "max_tokens": MAX_TOKENS,
            "temperature": 0,
        }
        answer = self._asked("POST", "/chat/completions", request, ATTEMPTS)
        try:
            text = answer["choices"][0]["message"]["content"]
            return str(text).strip() if text else ""
        except (KeyError, IndexError, TypeError):
            raise LongreelError(
                f"the summarizer {self.model} at {self.url} gave no chat completion"
            ) from None

    def models(self) -> list[str]:
        """Names of the models there.

        Raises:
            LongreelError: the endpoint does not say, or cannot be reached.
        """
        answer = self._asked("GET", "/models", None, attempts=2)
        try:
            return [str(model["id"]) for model in answer["data"]]
        except (KeyError, TypeError):
            raise LongreelError(f"the summarizer at {self.url} lists no models") from None

    def _asked(self, method: str, path: str, body: dict[str, Any] | None, attempts: int) -> Any:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        timeout = httpx.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        pause = FIRST_PAUSE_S
        for attempt in range(1, attempts + 1):
            try:
                answer = httpx.request(
                    method, self.url.rstrip("/") + path, json=body, headers=headers, timeout=timeout
                )
                if answer.is_success:
                    return answer.json()
                why = f"HTTP {answer.status_code}"
                if answer.status_code not in _BUSY:
                    break
                pause = max(pause, _seconds(answer.headers.get("retry-after")))
            except (httpx.TransportError, httpx.InvalidURL) as failure:
                why = type(failure).__name__
            except ValueError:
                why = "no JSON"
                break
            if attempt < attempts:
                time.sleep(min(pause, LONGEST_PAUSE_S))
                pause *= 2
        raise LongreelError(f"the summarizer at {self.url} does not answer: {why}")


def find_endpoint(url: str, model: str | None) -> Endpoint:
    """The endpoint at ``url``, its first model unless one is named.

    The key is ``LONGREEL_SUMMARIZER_API_KEY``, else ``OPENAI_API_KEY``, of the environment.

    Raises:
        LongreelError: there is no such endpoint, or it has no model of that name.
    """
    key = os.environ.get("LONGREEL_SUMMARIZER_API_KEY") or os.environ.get("OPENAI_API_KEY")
    there = Endpoint(url, "", key).models()
    if not there or (model and model not in there):
        raise LongreelError(
            f"the summarizer at {url} has "
            + (f"no model {model!r}; it has {', '.join(there)}" if there else "no models")
        )
    return Endpoint(url, model or there[0], key)


def check_address(url: str) -> None:
    """Refuse what cannot be the address of an endpoint. Raises ``UsageError``."""
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"--summarizer must be an http:// or https:// address, not {url!r}")
    if "@" in urlsplit(url).netloc or urlsplit(url).query:
        # The address is recorded beside the rows.
        raise UsageError(
            "--summarizer must hold no password or query; the key belongs into "
            "LONGREEL_SUMMARIZER_API_KEY"
        )


def _seconds(text: str | None) -> float:
    try:
        return float(text or 0)
    except ValueError:  # a date
        return 0.0
