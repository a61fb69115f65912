"""The body of an HTTP source as a file for FFmpeg, which itself is never let onto the network."""

from __future__ import annotations

import io
from contextlib import suppress
from typing import Any
from urllib.parse import urljoin, urlsplit

import urllib3

from serve.sources.addresses import Place, SourceError, SourceSettings, place_of

_REDIRECTS = 5
_AGENT = "longreel"


class HttpBody:
    """What a server sends for a URL, from byte ``start`` to before ``end``.

    Redirects are followed, each to a place that is checked as the first was; credentials go to
    the first host alone.

    Args:
        end: None for all that there is.

    Attributes:
        at: the byte that comes next.
        size: bytes in all; None where the server takes no ranges.
        url: of what is read, after redirects; with the login only where that was sent.
        endless: the server does not say how much it will send.

    Raises:
        SourceError: refused, not there, or silent for too long; while reading too.
    """

    def __init__(
        self, url: str, settings: SourceSettings, start: int = 0, end: int | None = None
    ) -> None:
        #: FFmpeg tells some formats by the name; it is no address to it.
        self.name = "source"
        self.url = url
        self._settings = settings
        self.at = start
        self._end = end
        self._stopped = False
        self._url = url
        self._response = self._opened(start)
        # Only where the server itself said so: a live one has no length.
        total = self._response.headers.get("Content-Range", "").rpartition("/")[2]
        self.size = int(total) if self._response.status == 206 and total.isdigit() else None
        self.endless = "Content-Length" not in self._response.headers and self.size is None

    def read(self, n: int = -1) -> bytes:
        """At most ``n`` bytes as soon as there are any; none at the end.

        Raises:
            SourceError: it was stopped, or the connection broke.
        """
        if self._stopped:
            raise SourceError("stopped", final=True)
        most = n if n > 0 else io.DEFAULT_BUFFER_SIZE
        if self._end is not None:
            # A server may send more than was asked for.
            most = min(most, self._end - self.at)
            if most <= 0:
                return b""
        if self._response is None:
            self._response = self._opened(self.at)
        try:
            data = self._response.read1(most)
        except (urllib3.exceptions.HTTPError, OSError) as failure:
            raise SourceError(_why(failure)) from None
        self.at += len(data)
        if not data and self.size is not None and self.at < self.size:
            raise SourceError(f"the connection broke at byte {self.at} of {self.size}")
        return data

    def go_to(self, byte: int) -> None:
        """Read from there on; costs a request."""
        if byte != self.at:
            self.at = byte
            if self._response is not None:
                self._response.close()
                self._response = None

    def close(self) -> None:
        """Let go of the connection; a read that waits in another thread ends."""
        self._stopped = True
        response = self._response
        if response is not None:
            with suppress(Exception):
                response.shutdown()
            # Not closed here: another thread may stand inside of it, and it goes with this object.

    def _opened(self, start: int) -> Any:
        url = self._url
        place = first = place_of(url, self._settings)
        for _ in range(_REDIRECTS + 1):
            known = (place.scheme, place.host, place.port) == (first.scheme, first.host, first.port)
            login = (first.user, first.password or "") if known and first.user else None
            response = self._asked(place, start, login)
            where = response.headers.get("Location")
            if response.status not in (301, 302, 303, 307, 308) or not where:
                break
            response.close()
            url = urljoin(url, where)
            place = place_of(url, self._settings)
            if place.scheme not in ("http", "https"):
                raise SourceError("it redirects away from HTTP", final=True)
        else:
            raise SourceError("it redirects without an end")
        if start and response.status == 200:
            response.close()
            raise SourceError("the server sends no parts of what it has")
        if response.status not in (200, 206):
            response.close()
            raise SourceError(f"the server answers {response.status} {response.reason}")
        self.url = _with_login(url, self._url if login else "")
        return response

    def _asked(self, place: Place, start: int, login: tuple[str, str] | None) -> Any:
        timeout = urllib3.Timeout(connect=self._settings.open_s, read=self._settings.read_s)
        options: dict[str, Any] = {"timeout": timeout, "maxsize": 1, "retries": False}
        if place.scheme == "https":
            options |= {"server_hostname": place.host, "assert_hostname": place.host}
            pool: Any = urllib3.HTTPSConnectionPool(place.address, place.port, **options)
        else:
            pool = urllib3.HTTPConnectionPool(place.address, place.port, **options)
        host = f"[{place.host}]" if ":" in place.host else place.host
        headers = {
            "Host": f"{host}:{place.port}" if place.port not in (80, 443) else host,
            "User-Agent": _AGENT,
            "Accept-Encoding": "identity",
            "Range": f"bytes={start}-" if self._end is None else f"bytes={start}-{self._end - 1}",
        }
        if login is not None:
            headers |= urllib3.make_headers(basic_auth=":".join(login))
        try:
            # Nothing is unpacked: places in the body are those of its bytes, and a small one that
            # unpacks to a huge one stays small.
            return pool.urlopen(
                "GET",
                place.target,
                headers=headers,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
        except (urllib3.exceptions.HTTPError, OSError) as failure:
            raise SourceError(_why(failure)) from None


class SeekableBody:
    """A body that can be read from any place on."""

    def __init__(self, body: HttpBody, size: int) -> None:
        self.name = body.name
        self.url = body.url
        self._body, self._size = body, size

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a byte; the next read asks for what begins there."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._body.at, io.SEEK_END: self._size}[whence]
        self._body.go_to(min(max(0, base + offset), self._size))
        return self._body.at

    def tell(self) -> int:
        """The byte that comes next."""
        return self._body.at

    def read(self, n: int = -1) -> bytes:
        """See ``HttpBody``; none after the last byte."""
        return b"" if self._body.at == self._size else self._body.read(n)

    def close(self) -> None:
        """See ``HttpBody``."""
        self._body.close()


def _with_login(url: str, giver: str) -> str:
    """``url`` with the login of the URL ``giver`` in place of its own."""
    parts = urlsplit(url)
    login, at, _ = urlsplit(giver).netloc.rpartition("@")
    return parts._replace(netloc=login + at + parts.netloc.rpartition("@")[2]).geturl()


def open_body(url: str, settings: SourceSettings) -> HttpBody | SeekableBody:
    """A seekable file where the server takes ranges, else a body from its beginning on."""
    body = HttpBody(url, settings)
    return body if body.size is None else SeekableBody(body, body.size)


def _why(failure: Exception) -> str:
    """One line without the URL, which urllib3's own messages hold."""
    kinds = {
        urllib3.exceptions.ConnectTimeoutError: "the host does not answer",
        urllib3.exceptions.ReadTimeoutError: "no data came for too long",
        urllib3.exceptions.NewConnectionError: "the host refuses the connection",
        urllib3.exceptions.SSLError: "the certificate or its encryption is not to be trusted",
        urllib3.exceptions.ProtocolError: "the connection broke",
    }
    for kind, words in kinds.items():
        if isinstance(failure, kind):
            return words
    return f"the connection failed ({type(failure).__name__})"
