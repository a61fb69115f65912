"""What a URL or an uploaded file's id names, made readable through ``actors.objects``."""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import IO
from urllib.parse import unquote_to_bytes

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from actors.objects import printable_uri, stat_object
from actors.s3 import split_uri
from longreel.errors import StorageError
from serve.addresses import check_outside, checked_addresses
from serve.decoding.media import MediaError
from serve.live.items import SessionError
from serve.routes.context import ApiSettings, Context
from serve.routes.filestore import content_uri, find_file, is_file_id

_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_REDIRECTS = 5
_PART_BYTES = 256 * 1024
_SHOWN_CHARACTERS = 200
#: Keys in S3 have at most 1024 bytes, three characters for each where they are quoted.
_MOST_URL = 8192
_PREFIX = "longreel-fetched-"
#: Of a percent-encoded text that is decoded at once: the library makes several objects of each %.
_SLICE = 2**16


def is_temporary(uri: str) -> bool:
    """Whether ``fetched`` has read what lies there into a file of its own."""
    return uri.startswith(os.path.join(tempfile.gettempdir(), _PREFIX))


@asynccontextmanager
async def fetched(url: str, context: Context) -> AsyncIterator[str]:
    """A uri of what ``url`` names, for as long as the context lasts.

    ``data:`` and ``http(s):`` URLs are read into a temporary file; an object in S3 and an uploaded
    file stay where they are.

    Raises:
        SessionError: ``url_not_allowed``, ``url_unreachable``, ``file_not_found``,
            ``media_too_large`` or, for a faulty ``data:`` URL, ``media_error``.
    """
    settings = context.settings
    scheme = url[:_MOST_URL].partition(":")[0].lower()
    if scheme != "data" and len(url) > _MOST_URL:
        raise SessionError(
            "url_not_allowed", f"a URL other than data: may have {_MOST_URL} characters"
        )
    if is_file_id(url):
        await asyncio.to_thread(find_file, context.store, url)
        yield content_uri(context.store, url)
        return
    if scheme == "s3":
        check_outside(url, context.store)
        yield await asyncio.to_thread(_in_s3, url, settings)
        return
    if scheme not in ("data", "http", "https"):
        raise SessionError(
            "url_not_allowed",
            f"{_shown(url)} is no data:, http(s) or s3:// URL and no uploaded file's id",
        )
    with tempfile.NamedTemporaryFile(prefix=_PREFIX) as file:
        if scheme == "data":
            await asyncio.to_thread(_write_data, url, file, settings)
        else:
            await _download(url, file, settings)
        file.flush()
        yield file.name


def _shown(url: str) -> str:
    """A URL fit for messages: without credentials and query, and of bounded length."""
    shown = printable_uri(url.partition("?")[0])
    return shown if len(shown) <= _SHOWN_CHARACTERS else f"{shown[:_SHOWN_CHARACTERS]}..."


def _in_s3(url: str, settings: ApiSettings) -> str:
    try:
        bucket, _ = split_uri(url)
        if bucket not in settings.s3_buckets:
            raise SessionError("url_not_allowed", f"{_shown(url)} is in no bucket that is allowed")
        return stat_object(url).uri
    except StorageError as error:
        code = "url_not_allowed" if error.kind == "UnsupportedUri" else "url_unreachable"
        raise SessionError(code, f"{_shown(url)} cannot be read: {error.kind}") from None


def _write_data(url: str, file: IO[bytes], settings: ApiSettings) -> None:
    head, comma, body = url.partition(",")
    if not comma:
        raise MediaError("media_error", "the data: URL has no comma before its data")
    # Before anything is decoded; what is spelled with % is shorter still.
    if head.lower().endswith(";base64"):
        _check_size(len(body) * 3 // 4 - 2, "the data: URL", settings)
        try:
            data = base64.b64decode(_unquoted(body), validate=True)
        except binascii.Error as error:
            raise MediaError("media_error", f"the data: URL is no base64: {error}") from None
    else:
        data = _unquoted(body)
    _check_size(len(data), "the data: URL", settings)
    file.write(data)


def _unquoted(body: str) -> bytes:
    """``body`` without its percent-encoding, in memory of its own size."""
    found, at = bytearray(), 0
    while at < len(body):
        end = min(at + _SLICE, len(body))
        for back in (1, 2):
            if end < len(body) and body[end - back] == "%":  # not amid %XX
                end -= back
                break
        found += unquote_to_bytes(body[at:end])
        at = end
    return bytes(found)


def _check_size(size: int, what: str, settings: ApiSettings) -> None:
    if size > settings.max_upload_bytes:
        raise MediaError(
            "media_too_large", f"{what} has more than {settings.max_upload_bytes} bytes"
        )


async def _download(url: str, file: IO[bytes], settings: ApiSettings) -> None:
    try:
        async with asyncio.timeout(settings.fetch_timeout_s):
            here = _parsed(url)
            for _ in range(_MOST_REDIRECTS + 1):
                further = await _step(here, file, settings)
                if further is None:
                    return
                here = further
    except TimeoutError:
        raise SessionError(
            "url_unreachable", f"{_shown(url)} took more than {settings.fetch_timeout_s:g} s"
        ) from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        reason = type(error).__name__
        raise SessionError("url_unreachable", f"{_shown(url)} cannot be read: {reason}") from None
    raise SessionError("url_unreachable", f"{_shown(url)} redirects more than {_MOST_REDIRECTS} x")


def _parsed(url: str) -> URL:
    try:
        parsed = URL(url)
        known = parsed.scheme in ("http", "https") and bool(parsed.raw_host)
    except ValueError:
        known = False
    if not known:
        raise SessionError("url_not_allowed", f"{_shown(url)} is no http or https address")
    return parsed


async def _step(url: URL, file: IO[bytes], settings: ApiSettings) -> URL | None:
    """Reads ``url`` into ``file``; where it redirects to, if it does."""
    addresses = await checked_addresses(url.raw_host or "", url.port or 0, settings)
    connector = aiohttp.TCPConnector(
        resolver=_Known(addresses), use_dns_cache=False, force_close=True
    )
    async with (
        aiohttp.ClientSession(
            connector=connector,
            # The cap on bytes is one on what is received: nothing is unpacked.
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        ) as session,
        session.get(
            url,
            allow_redirects=False,
            headers={"Accept-Encoding": "identity", "User-Agent": "longreel"},
        ) as response,
    ):
        target = response.headers.get("Location")
        if response.status in _REDIRECTS and target:
            return _parsed(str(url.join(URL(target))))
        if response.status != 200:
            raise SessionError(
                "url_unreachable", f"{_shown(str(url))} answers with status {response.status}"
            )
        _check_size(response.content_length or 0, _shown(str(url)), settings)
        received = 0
        async for part in response.content.iter_chunked(_PART_BYTES):
            received += len(part)
            _check_size(received, _shown(str(url)), settings)
            file.write(part)
    return None


class _Known(AbstractResolver):
    """Answers with addresses that were checked, so that no second look-up can differ."""

    def __init__(self, addresses: list[str]) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self._addresses
        ]

    async def close(self) -> None:
        """Nothing is open."""
