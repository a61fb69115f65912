"""What callers hand in as pictures and videos, as bytes with their media type."""

from __future__ import annotations

import io
import mimetypes
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from longreel.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Picture = bytes | str | PathLike[str] | NDArray[np.uint8]
Video = bytes | str | PathLike[str]

#: Names that the service, not the client, opens.
_REMOTE = ("http://", "https://", "s3://", "data:")
_HEADS = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n", "image/png"),
    (b"\x1a\x45\xdf\xa3", "video/webm"),
    (b"\x47", "video/mp2t"),
)


def media_type(data: bytes, name: str = "") -> str:
    """The media type that the first bytes show, else the name."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if data[4:8] == b"ftyp":
        return "video/mp4"
    for head, found in _HEADS:
        if data.startswith(head):
            return found
    return mimetypes.guess_type(name)[0] or "application/octet-stream"


def picture(given: Picture) -> tuple[bytes, str]:
    """The bytes and media type of one picture.

    Args:
        given: an encoded picture, its path, or (height, width, 3) uint8 RGB, which is sent as PNG.

    Raises:
        UsageError: it is none of these.
    """
    if isinstance(given, bytes | bytearray | memoryview | str | PathLike):
        data, name = _bytes(given)
        found = media_type(data, name)
        if not found.startswith("image/"):
            raise UsageError(f"{name or 'the bytes'} given as a picture: {found} is none")
        return data, found
    return _png(given), "image/png"


def video(given: Video) -> tuple[bytes, str]:
    """The bytes and media type of one encoded piece of video, or of its file.

    Raises:
        UsageError: it cannot be read, or is a picture.
    """
    data, name = _bytes(given)
    found = media_type(data, name)
    if found.startswith("image/"):
        raise UsageError(f"{name or 'the bytes'} given as a video: {found} is none")
    return data, found if found.startswith("video/") else "video/mp4"


def remote_part(given: object) -> dict[str, Any] | None:
    """The content part of what the service reaches itself; None where it must be sent.

    Whether an address is of a picture or a video is told by its name.
    """
    if not isinstance(given, str):
        return None
    if given.startswith(_REMOTE):
        name = given if given.startswith("data:") else urlsplit(given).path
        is_picture = (mimetypes.guess_type(name)[0] or "").startswith("image/")
        kind = "image_url" if is_picture else "video_url"
        return {"type": kind, kind: {"url": given}}
    if given.startswith("file-") and not Path(given).exists():
        return file_part(given)
    return None


def file_part(file_id: str) -> dict[str, Any]:
    """The content part of an uploaded file."""
    return {"type": "file", "file": {"file_id": file_id}}


def _bytes(given: bytes | bytearray | memoryview | str | PathLike[str]) -> tuple[bytes, str]:
    if isinstance(given, bytes | bytearray | memoryview):
        return bytes(given), ""
    try:
        return Path(given).read_bytes(), str(given)
    except OSError as failure:
        raise UsageError(f"cannot read {given}: {failure.strerror}") from None


def _png(given: Any) -> bytes:
    shape, kind = getattr(given, "shape", None), str(getattr(given, "dtype", ""))
    if shape is None or len(shape) != 3 or shape[2] != 3 or kind != "uint8":
        raise UsageError(
            f"a picture is bytes, a path or (height, width, 3) uint8, not {shape or type(given)}"
            + (f" {kind}" if kind else "")
        )
    from PIL import Image

    buffer = io.BytesIO()
    # Lossless, so that the model sees these pixels; fast rather than small.
    Image.fromarray(given).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
