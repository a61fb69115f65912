"""The console: files of ``serve.console``, at ``/`` and ``/console/``."""

# Without postponed annotations: routes travel to the gateway's process with what their code names,
# and a type that stands in a string is not among it.
import hashlib
from dataclasses import dataclass
from importlib.resources import files

from fastapi import APIRouter, HTTPException, Request, Response

_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
#: What the page may do: run its own modules, reach its own address, and show what the user chose.
_POLICY = "; ".join(
    [
        "default-src 'self'",
        "media-src 'self' blob:",
        "img-src 'self' blob: data:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
_HEADERS = {
    # Asked for anew each time, and sent only if it changed: no page of an older service is left.
    "Cache-Control": "no-cache",
    "Content-Security-Policy": _POLICY,
    "Permissions-Policy": "camera=(self), display-capture=(self), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@dataclass(frozen=True)
class _Page:
    """A file as it is sent."""

    body: bytes
    type: str
    etag: str


def _pages() -> dict[str, _Page]:
    found = {}
    for file in files("serve.console").iterdir():
        kind = _TYPES.get(file.name.rpartition(".")[2])
        if kind is not None:
            body = file.read_bytes()
            found[file.name] = _Page(body, kind, f'"{hashlib.sha256(body).hexdigest()[:32]}"')
    return found


def router() -> APIRouter:
    """The page and what it loads; no part of the API, and not in its description."""
    routes = APIRouter(include_in_schema=False)
    pages = _pages()

    @routes.api_route("/", methods=["GET", "HEAD"])
    async def index(request: Request) -> Response:
        return _sent(request, pages["index.html"])

    @routes.api_route("/console/{name}", methods=["GET", "HEAD"])
    async def part(request: Request, name: str) -> Response:
        if name not in pages:
            raise HTTPException(404, f"the console has no file {name!r}")
        return _sent(request, pages[name])

    return routes


def _sent(request: Request, page: _Page) -> Response:
    headers = {**_HEADERS, "ETag": page.etag}
    known = request.headers.get("if-none-match", "")
    if page.etag in (tag.strip().removeprefix("W/") for tag in known.split(",")):
        return Response(None, 304, headers)
    return Response(page.body, 200, headers, page.type)
