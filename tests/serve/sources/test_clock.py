"""Arithmetic of live sources: what time it is in them, and which pictures are taken."""

from __future__ import annotations

import pytest

from serve.sources.clock import Grid, SourceClock
from serve.sources.rtspguard import AnswerWatch


def settled(stamp_s: float = 0.0, now_s: float = 0.0) -> SourceClock:
    """A clock of a source at 25 pictures a second that has shown its first three."""
    clock = SourceClock()
    for i in range(-2, 1):
        clock.shown_at(stamp_s + i / 25, now_s + i / 25)
    return clock


def test_a_picture_that_is_late_keeps_its_time() -> None:
    """Guards against times that are those of the network and not of the pictures."""
    clock = settled(stamp_s=1000.0)
    assert clock.shown_at(1000.2, 0.2) == pytest.approx(0.2)
    assert clock.shown_at(1000.4, 1.4) == pytest.approx(0.4, abs=0.01)
    assert clock.shown_at(1001.4, 1.41) == pytest.approx(1.4, abs=0.01)


def test_what_lay_waiting_is_left_out() -> None:
    """Guards against a join that shows the past as the present, and stays behind for ever."""
    clock = SourceClock()
    for i in range(50):  # two seconds at once
        assert clock.shown_at(i / 25, 10 + i / 1000) is None
    assert clock.shown_at(2.0, 10.09) == pytest.approx(10.09, abs=0.005)
    assert clock.shown_at(2.04, 10.13) == pytest.approx(10.13, abs=0.005)


def test_no_time_goes_back_or_into_the_future() -> None:
    """Guards against frames that a session drops as late, or waits for."""
    clock = SourceClock(last_s=5.0)
    clock.shown_at(100.0, 5.0)
    now_s, last_s = 5.0, 5.0
    for step in (0.1, 0.1, 90.0, -300.0, 0.1, 20.0, 0.1):  # jumps of a camera's own clock
        now_s += 0.1
        found = clock.shown_at(100.0 + step, now_s)
        assert found is not None
        assert last_s <= found <= now_s
        last_s = found


@pytest.mark.parametrize("rate", [0.9997, 1.0003])
def test_a_clock_that_goes_wrong_is_followed(rate: float) -> None:
    """Guards against a camera that drifts seconds away from the wall in a day."""
    clock = settled()
    for second in range(1, 86_400, 20):
        found = clock.shown_at(second * rate, float(second))
        assert found == pytest.approx(second, abs=0.05)


def test_a_source_that_falls_far_behind_is_set_anew() -> None:
    """Guards against times that stand still after a camera was restarted with an older clock."""
    clock = settled(stamp_s=5000.0)
    assert clock.shown_at(3.0, 7.0) == pytest.approx(7.0)


@pytest.mark.parametrize("segment_s", [6, 12, 30])
def test_what_comes_in_segments_keeps_its_distance(segment_s: int) -> None:
    """Guards against the pictures of a long segment at one moment: all but its last come late."""
    clock = SourceClock()
    for stamp_s in range(1, 20 * segment_s):
        comes_s = (stamp_s // segment_s + 1) * segment_s
        found = clock.shown_at(float(stamp_s), float(comes_s))
        if stamp_s > 2 * segment_s:
            # The last picture of each says how its clock stands.
            assert found == pytest.approx(stamp_s + 1, abs=0.05)


def test_the_first_picture_of_each_grid_point_is_taken() -> None:
    """Guards against two frames at one point, and points that are no multiples of 1 / fps."""
    grid = Grid(2.0)
    taken = [grid.take(i / 25) for i in range(30)]
    assert {i: t for i, t in enumerate(taken) if t is not None} == {0: 0.0, 13: 0.5, 25: 1.0}
    assert grid.take(7.9) == 7.5
    again = Grid(2.0, last_s=7.5)
    assert again.take(7.99) is None
    assert again.take(8.0) == 8.0


OK = b"RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n"
AWAY = b"RTSP/1.0 302 Found\r\nLocation: rtsp://10.0.0.1/\r\n\r\n"
BODY = b"RTSP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(AWAY) + AWAY
PICTURE = b"$\0" + len(AWAY).to_bytes(2, "big") + AWAY


@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_redirects_are_seen_wherever_packets_are_cut(step: int) -> None:
    """Guards against a redirect that is passed on in pieces, and pictures taken for one."""

    def first_objection(data: bytes) -> int | None:
        watch = AnswerWatch()
        for start in range(0, len(data), step):
            if watch.objection(data[start : start + step]):
                return start
        return None

    assert first_objection(OK + BODY + PICTURE * 3 + OK) is None
    for before in (b"", OK, BODY, PICTURE, b"\r\n" + OK):
        found = first_objection(before + AWAY)
        assert found is not None
        assert found < len(before + AWAY) - 2 or step > 10, "its end was passed on"
        assert first_objection(before + AWAY.replace(b"\r", b"")) is not None


@pytest.mark.parametrize(
    "status",
    [
        b"RTSP/1.0 +302 Found",
        b"RTSP/1.0 0302 Found",
        b"RTSP/1.0\t302",
        b"RTSP/1.0\x0b200 302",
        b"RTSP/1.0 \x0c302 OK",
        b"RTSP/1.0 302",
        b" RTSP/1.0 302 Found",
        b"RTSP/1.0  302 Found",
        b"RTSP/x 302 Found",
        b"RTSP/1.0\0 302 Found",
        b"\0",
    ],
)
def test_a_status_is_read_as_ffmpeg_reads_it(status: bytes) -> None:
    """Guards against a redirect that FFmpeg sees and the guard does not."""
    answer = status + b"\r\nLocation: rtsp://10.0.0.1/\r\n\r\n"
    assert AnswerWatch().objection(answer)
    assert AnswerWatch().objection(answer[:-2])


@pytest.mark.parametrize(
    "first",
    [
        b"RTSP/1.0 200 OK",
        b"RTSP/1.0 200",
        b"RTSP/1.0 401 Unauthorized",
        b"RTSP/1.0  200  OK",
        b"RTSP/1.0 454 Session 302 Not Found",
        b"OPTIONS rtsp://camera/302 RTSP/1.0",
        b"SET_PARAMETER * RTSP/1.0",
    ],
)
def test_what_sends_nobody_elsewhere_is_passed_on(first: bytes) -> None:
    """Guards against cameras that are refused for how they write, and for what they ask."""
    message = first + b"\r\nCSeq: 1\r\nServer: $ 302\r\n\r\n"
    for end in range(1, len(message) + 1):
        assert AnswerWatch().objection(message[:end]) is None


@pytest.mark.parametrize("step", [1, 10_000])
@pytest.mark.parametrize("start", [b"", b"\r", b"X: y\r\n"])
def test_a_picture_within_a_head_is_refused(start: bytes, step: int) -> None:
    """Guards against a length that the guard alone sees: FFmpeg passes over ``$`` in any line."""
    hidden = b"\r\nContent-Length: 200\r\nX: "
    data = b"RTSP/1.0 200 OK\r\n" + start + b"$\0" + len(hidden).to_bytes(2, "big") + hidden
    watch = AnswerWatch()
    data += b"\r\n\r\n"
    assert any(watch.objection(data[i : i + step]) for i in range(0, len(data), step))


@pytest.mark.parametrize(
    "line",
    [
        b" Content-Length: 200",
        b"Content-Length : 200",
        b"Content-Length: 4294967296",
        b"Content-Length:" + b" " * 5000 + b"200",
    ],
)
def test_a_length_that_ffmpeg_reads_otherwise_is_refused(line: bytes) -> None:
    """Guards against a redirect behind a body that FFmpeg does not see, or sees the end of."""
    assert AnswerWatch().objection(b"RTSP/1.0 200 OK\r\n" + line + b"\r\n\r\n")


@pytest.mark.parametrize("length", [b"+5", b"5, 6", b"-1", b"5\r\nContent-Length: 6"])
def test_a_length_that_can_be_read_in_two_ways_is_refused(length: bytes) -> None:
    """Guards against an answer that hides a redirect behind a body that has another end."""
    answer = b"RTSP/1.0 200 OK\r\nContent-Length: " + length + b"\r\n\r\n"
    assert AnswerWatch().objection(answer)
