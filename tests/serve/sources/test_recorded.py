"""Following what has an end or comes in pieces: files over HTTP, playlists, objects."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import av
import pytest

from actors.objects import write_bytes
from actors.pictures import PictureMaker
from infra.objectstore import ObjectStore
from serve.sources.addresses import SourceError, SourceSettings
from serve.sources.httpbody import HttpBody
from serve.sources.opening import Opened, open_source
from tests.serve.live_sources import FPS, HttpSource, moving_video
from tests.serve.sources.following import SETTINGS, following
from tests.videos import HEIGHT, WIDTH, read_number

pytestmark = pytest.mark.waits


@pytest.mark.slow
@pytest.mark.parametrize("name", ["end.mp4", "start.mp4", "film.webm"])
def test_a_recording_plays_at_its_pace_and_ends(name: str, tmp_path: Path) -> None:
    """Guards against an hour of film thrown at a session at once, and an index at the end that
    cannot be reached."""
    from tests.videos import write_video, x264

    if name.endswith("webm"):
        options = {"deadline": "realtime", "cpu-used": "8"}
        write_video(tmp_path / name, "libvpx-vp9", n_frames=50, options=options)
    else:
        fast = {"movflags": "+faststart"} if name == "start.mp4" else {}
        write_video(tmp_path / name, n_frames=50, options=x264(), container_options=fast)

    async def scenario() -> None:
        with HttpSource(tmp_path) as source:
            before = time.monotonic()
            async with following(f"{source.url}/{name}", reconnect=True) as found:
                await found.until(lambda: found.record.over)
                assert 1.5 < time.monotonic() - before < 8
            assert found.record.state == "ended"
            assert found.record.error is None
            assert found.sessions.times() == pytest.approx([i / 5 for i in range(10)])
            assert found.sessions.numbers() == [i * 5 for i in range(10)]

    asyncio.run(scenario())


@pytest.mark.slow
def test_a_recording_goes_on_where_it_was(tmp_path: Path) -> None:
    """Guards against a recording that is shown again from its beginning after a restart."""
    moving_video(tmp_path / "film.mp4", 4)

    async def scenario() -> None:
        now = time.time()
        with HttpSource(tmp_path) as source:
            url = f"{source.url}/film.mp4"
            async with following(url, last_s=2.0, began_at=now - 2.1) as found:
                await found.until(lambda: found.record.over)
            assert found.sessions.numbers() == [i * 5 for i in range(11, 20)]

    asyncio.run(scenario())


@pytest.mark.objectstore
@pytest.mark.slow
def test_an_object_in_a_bucket_is_played(
    objectstore: ObjectStore, bucket: str, tmp_path: Path
) -> None:
    """Guards against buckets that are open to everyone, and objects that cannot be followed."""
    film = moving_video(tmp_path / "film.mp4", 2)
    write_bytes(f"s3://{bucket}/film.mp4", film.read_bytes())

    async def scenario() -> None:
        url = f"s3://{bucket}/film.mp4"
        async with following(url) as found:
            await found.until(lambda: found.record.over)
            assert (found.record.state, found.sessions.given) == ("failed", [])
        allowed = replace(SETTINGS, s3_buckets=(bucket,))
        async with following(url, settings=allowed) as found:
            await found.until(lambda: found.record.over)
            assert (found.record.state, found.record.error) == ("ended", None)
            assert found.sessions.numbers() == [i * 5 for i in range(10)]
        async with following(f"s3://{bucket}/none.mp4", settings=allowed) as found:
            await found.until(lambda: found.record.over)
            assert "NotFound" in (found.record.error or "")

    asyncio.run(scenario())


def write_hls(folder: Path, seconds: float, **options: str) -> None:
    """``live.m3u8`` and its segments of a second each."""
    options = {"hls_time": "1"} | options
    film = moving_video(folder / "film.ts", seconds)
    with (
        av.open(str(film)) as source,
        av.open(str(folder / "live.m3u8"), "w", format="hls", options=options) as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)


@pytest.mark.slow
def test_hls_is_followed(tmp_path: Path) -> None:
    """Guards against playlists whose segments are never opened, or as fast as the net allows."""
    write_hls(tmp_path, 3)

    async def scenario() -> None:
        with HttpSource(tmp_path) as source:
            before = time.monotonic()
            async with following(f"{source.url}/live.m3u8") as found:
                await found.until(lambda: found.record.over)
            assert time.monotonic() - before > 2
            assert (found.record.state, found.record.error) == ("ended", None)
            assert found.sessions.numbers() == [i * 5 for i in range(15)]

    asyncio.run(scenario())


@contextmanager
def opening(url: str, settings: SourceSettings = SETTINGS) -> Iterator[Opened]:
    """An open source, closed at the end."""
    opened = open_source(url, settings)
    with closing(opened.container):
        yield opened
        opened.close()


def numbers_of(url: str) -> list[int]:
    """The pictures of a source, as fast as they are read."""
    maker = PictureMaker((HEIGHT, WIDTH), 0, None)
    with opening(url) as opened:
        return [read_number(maker.model_input(picture)) for picture, _ in opened.pictures()]


@pytest.mark.parametrize("kind", ["mpegts", "fmp4"])
def test_segments_that_are_parts_of_one_file_are_shown_in_turn(kind: str, tmp_path: Path) -> None:
    """Guards against the first second of such a file again and again."""
    write_hls(tmp_path, 3, hls_flags="single_file", hls_segment_type=kind)
    playlist = tmp_path / "live.m3u8"
    assert "#EXT-X-BYTERANGE" in playlist.read_text()
    with HttpSource(tmp_path) as source:
        assert numbers_of(f"{source.url}/live.m3u8") == list(range(75))


@pytest.mark.slow
def test_of_a_playlist_of_many_variants_one_is_fetched(tmp_path: Path) -> None:
    """Guards against a ladder of them that is refused, or downloaded as a whole all the time."""
    (tmp_path / "0").mkdir()
    write_hls(tmp_path / "0", 4, hls_segment_type="fmp4")
    ladder = ["#EXTM3U"]
    for i in range(24):
        if i:
            (tmp_path / f"{i}").symlink_to("0")
        ladder += [f"#EXT-X-STREAM-INF:BANDWIDTH={i + 1}00000", f"{i}/live.m3u8"]
    (tmp_path / "ladder.m3u8").write_text("\n".join(ladder) + "\n")
    with HttpSource(tmp_path) as source:
        assert numbers_of(f"{source.url}/ladder.m3u8") == list(range(100))
    last = [line for line in source.asked if "live3.m4s" in line]
    assert last == ["/0/live3.m4s bytes=0-"]


def test_names_in_a_playlist_are_relative_to_where_it_was_found(tmp_path: Path) -> None:
    """Guards against segments that are looked for where only the redirect is."""
    (tmp_path / "edge").mkdir()
    write_hls(tmp_path / "edge", 2)
    with HttpSource() as front, HttpSource(tmp_path) as edge:
        found = numbers_of(f"{front.url}/away?{edge.url}/edge/live.m3u8")
    assert found == list(range(50))


@pytest.mark.parametrize(
    ("where", "login"),
    [
        ("/edge/x", "user:secret@"),
        ("http://{own}/edge/x", "user:secret@"),
        ("http://{other}/edge/x", ""),
        ("http://who:ever@{other}/edge/x", ""),
    ],
)
def test_what_a_playlist_names_gets_the_login_of_its_own_host(where: str, login: str) -> None:
    """Guards against a login that travels with a redirect, or is lost on its own host."""

    class Edge(HttpSource):
        def _file(self, client: socket.socket, path: str, wanted: str) -> None:
            client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

    with Edge() as own, Edge() as other:
        hosts = [each.url.removeprefix("http://") for each in (own, other)]
        target = where.format(own=hosts[0], other=hosts[1])
        url = own.url.replace("//", "//user:secret@") + f"/away?{target}"
        host = hosts[1] if "{other}" in where else hosts[0]
        assert HttpBody(url, SETTINGS).url == f"http://{login}{host}/edge/x"


class Whole(HttpSource):
    """Sends whole files, whatever part is asked for; their length where ``says_length``."""

    says_length = True

    def _file(self, client: socket.socket, path: str, wanted: str) -> None:
        assert self._folder
        data = (self._folder / path.lstrip("/")).read_bytes()
        length = f"Content-Length: {len(data)}\r\n" if self.says_length else ""
        client.sendall(f"HTTP/1.1 200 OK\r\n{length}\r\n".encode() + data)


@pytest.mark.parametrize(("says_length", "paced"), [(True, True), (False, False)])
def test_an_flv_without_a_duration_is_live_unless_it_has_a_length(
    says_length: bool, paced: bool, tmp_path: Path
) -> None:
    """Guards against a camera that is never opened again, for its header says that it lasts 0 s."""
    written = moving_video(tmp_path / "live.flv", 1)
    data = written.read_bytes()
    # A number of eight bytes after its name and kind; what is written as it comes has 0 there.
    place = data.index(b"duration") + len(b"duration") + 1
    written.write_bytes(data[:place] + bytes(8) + data[place + 8 :])
    with Whole(tmp_path) as source:
        source.says_length = says_length
        with opening(f"{source.url}/live.flv") as opened:
            assert opened.container.duration == 0
            assert opened.paced is paced


def test_a_server_that_sends_no_parts_is_named(tmp_path: Path) -> None:
    """Guards against the beginning of a file in place of its part."""
    write_hls(tmp_path, 2, hls_flags="single_file")
    with Whole(tmp_path) as source:
        first = HttpBody(f"{source.url}/live.ts", SETTINGS, 0, 188)
        assert len(b"".join(iter(lambda: first.read(100), b""))) == 188
        with pytest.raises(SourceError, match="sends no parts"):
            HttpBody(f"{source.url}/live.ts", SETTINGS, 188, 376)


@pytest.mark.slow
def test_a_live_playlist_is_followed(tmp_path: Path) -> None:
    """Guards against a list that is read once and never again."""
    write_hls(tmp_path, 12)
    playlist = tmp_path / "live.m3u8"
    lines = playlist.read_text().replace("#EXT-X-ENDLIST\n", "").split("#EXTINF")

    async def scenario() -> None:
        playlist.write_text("#EXTINF".join(lines[:4]))
        with HttpSource(tmp_path) as source:
            async with following(f"{source.url}/live.m3u8") as found:
                for n in range(5, 11):
                    await asyncio.sleep(1)
                    playlist.write_text("#EXTINF".join(lines[:n]))
                await found.frames(8)
                assert (await found.stop()).state == "ended"
            numbers, times = found.sessions.numbers(), found.sessions.times()
            for i in range(1, len(times)):
                # Segments come at once; their pictures keep their distance.
                elapsed_s = (numbers[i] - numbers[0]) / FPS
                assert abs(elapsed_s - (times[i] - times[0])) < 1.5

    asyncio.run(scenario())


@pytest.mark.slow
def test_a_segment_may_take_longer_than_a_picture(tmp_path: Path) -> None:
    """Guards against a source that is lost between two segments, and against waiting for ever."""
    write_hls(tmp_path, 4)
    playlist = tmp_path / "live.m3u8"
    whole = playlist.read_text()
    playlist.write_text("#EXTINF".join(whole.split("#EXTINF")[:4]))

    def seen(segment_s: float, then: str) -> int:
        settings = replace(SETTINGS, read_s=0.3, segment_s=segment_s)
        n = 0
        with opening(f"{source.url}/live.m3u8", settings) as opened, suppress(SourceError):
            for n, _ in enumerate(opened.pictures(), 1):
                if n == 80:
                    playlist.write_text(then)
        return n

    with HttpSource(tmp_path) as source:
        assert seen(0.3, playlist.read_text()) == 84  # all that there was
        assert seen(5.0, whole) == 100
