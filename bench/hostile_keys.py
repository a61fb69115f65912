"""One key's holder after another's things: every operation that the API describes, on a running
service.
"""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import httpx
from PIL import Image

from serve.keys.key import Limits, new_key
from serve.keys.keystore import write_key

#: Of a path's parameters, what makes one: path and request.
_MADE: dict[str, tuple[str, dict[str, Any]]] = {
    "session": ("/v1/sessions", {"json": {"kept": True}}),
    "file": ("/v1/files", {"data": {"purpose": "user_data"}}),
    "stream": ("/v1/streams", {"json": {"url": "http://127.0.0.1:9/none.mp4"}}),
}
#: What makes a request one that would be served, by the end of its path.
_ASKED: dict[str, dict[str, Any]] = {
    "frames": {"headers": {"Content-Type": "image/jpeg"}},
    "responses": {"json": {"input": "What is there?"}},
    "kept": {"params": {"frame": 0}},
}


@dataclass
class Trespass:
    """What came of it.

    Attributes:
        tries: requests that were made for what is another's, or with no key or a forged one.
        answers: by status.
        reads: those that told or did anything, or told more than of what is not there.
        kinds: of things that were tried.
    """

    tries: int = 0
    answers: Counter[int] = field(default_factory=Counter)
    reads: list[str] = field(default_factory=list)
    kinds: set[str] = field(default_factory=set)

    def shown(self) -> dict[str, Any]:
        """For a result file."""
        answers = {str(status): n for status, n in sorted(self.answers.items())}
        return {"tries": self.tries, "answers": answers, "reads": self.reads,
                "kinds": sorted(self.kinds)}  # fmt: skip

    def note(self, what: str, answer: httpx.Response, *, status: int, told: str = "") -> None:
        """One more, which should have had ``status`` and, where given, the body ``told``."""
        self.tries += 1
        self.answers[answer.status_code] += 1
        if answer.status_code != status or (told and answer.text != told):
            self.reads.append(f"{what}: {answer.status_code}")


def trespass(url: str, store: str) -> Trespass:
    """Make things with one key, and reach for each of them with another, with none, and with keys
    that are nearly right.

    Args:
        url: of a service whose clients need keys.
        store: uri of its state store, where two are made.
    """
    found = Trespass()
    hers, his = _key(store), _key(store)
    with httpx.Client(base_url=url, timeout=60.0) as http:
        _until_known(http, hers, his)
        operations = [
            (method.upper(), path)
            for path, methods in http.get("/openapi.json").json()["paths"].items()
            for method in methods
        ]
        forged = (None, hers[:-1] + ("a" if hers[-1] != "a" else "b"), hers[:16] + his[16:])
        for method, path in operations:
            names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
            if not names or names[0] not in _MADE:
                continue
            kind = names[0]
            found.kinds.add(kind)
            thing = _made(http, kind, hers)
            other = _nobodys(thing)
            rest = {"response": "resp-1", "frame": "0"}
            there, nowhere = (path.format(**{**rest, kind: each}) for each in (thing, other))
            asked = _asked(path)
            seen, unseen = (_sent(http, method, each, his, asked) for each in (there, nowhere))
            told = unseen.text.replace(other, thing)
            found.note(f"{method} {path}", seen, status=404, told=told)
            for key, each in product(forged, (there, nowhere)):
                answer = _sent(http, method, each, key, asked)
                found.note(f"{method} {path} with a forged key", answer, status=401)
        for listed in ("/v1/sessions", "/v1/files", "/v1/streams"):
            found.tries += 1
            if _sent(http, "GET", listed, his, {}).json()["data"]:
                found.reads.append(f"GET {listed}")
        file = _made(http, "file", hers)
        part = {"type": "video_url", "video_url": {"url": file}}
        chat = {"model": "longreel-tiny", "messages": [{"role": "user", "content": [part]}]}
        answer = _sent(http, "POST", "/v1/chat/completions", his, {"json": chat})
        found.note("a chat about another's file", answer, status=404)
    return found


def _key(store: str) -> str:
    kept, text = new_key("bench", Limits())
    write_key(store, kept)
    return text


def _until_known(http: httpx.Client, *keys: str) -> None:
    for key in keys:
        while _sent(http, "GET", "/v1/sessions", key, {}).status_code == 401:
            pass


def _made(http: httpx.Client, kind: str, key: str) -> str:
    path, request = _MADE[kind]
    if kind == "file":
        request = {**request, "files": {"file": ("picture.jpg", _picture())}}
    answer = _sent(http, "POST", path, key, request)
    answer.raise_for_status()
    return str(answer.json()["id"])


def _nobodys(thing: str) -> str:
    """As long as the id ``thing``, and of nothing."""
    head, dash, tail = thing.rpartition("-")
    return head + dash + "0" * len(tail)


def _asked(path: str) -> dict[str, Any]:
    asked = _ASKED.get(path.rpartition("/")[2], {})
    return {**asked, "content": _picture()} if path.endswith("/frames") else asked


def _sent(
    http: httpx.Client, method: str, path: str, key: str | None, request: dict[str, Any]
) -> httpx.Response:
    headers = dict(request.get("headers", {}))
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    with http.stream(method, path, **{**request, "headers": headers}) as answer:
        # Of a stream of events the head says enough, and there may be no end.
        if "event-stream" in answer.headers.get("Content-Type", ""):
            return httpx.Response(answer.status_code)
        answer.read()
        return answer


def _picture() -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (32, 32), "teal").save(data, "JPEG")
    return data.getvalue()
