"""What clients may send, and what the service may do for them: set by whoever runs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ApiSettings:
    """What clients may send.

    Attributes:
        max_upload_bytes: of one request or file.
        max_pixels: of one picture or frame, as encoded.
        max_video_s: length of a video that is taken in by one call.
        fetch_timeout_s: for fetching a URL, in all.
        decode_timeout_s: for decoding a minute of video; a picture has 10 seconds at most.
        decode_memory_bytes: that a decoding process may have.
        allow_private_urls: fetch from loopback and private addresses too (tests, closed nets).
        s3_buckets: buckets that ``s3://`` URLs may name; none by default.
        keys: clients need an API key of the state store.
        summarizers: endpoints that jobs of theirs may name then; without keys any.
        metrics_key: where they do, ``/metrics`` asks for one too.
        local_only: without keys, what a browser sends for a page from another machine, or by
            another machine's name, is refused.
    """

    max_upload_bytes: int = 512 * 2**20
    max_pixels: int = 50_000_000
    max_video_s: float = 3600.0
    fetch_timeout_s: float = 60.0
    decode_timeout_s: float = 60.0
    decode_memory_bytes: int = 2 * 2**30
    allow_private_urls: bool = False
    s3_buckets: Sequence[str] = ()
    keys: bool = False
    summarizers: Sequence[str] = ()
    metrics_key: bool = False
    local_only: bool = False
