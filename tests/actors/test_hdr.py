"""Pictures of high dynamic range, made from published signal levels, as SDR shows them.

Guards against what the model cannot know: whites that are grey, and colours that are pale.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.reformatter import ColorPrimaries, ColorTrc, Interpolation

from actors.pictures import PictureMaker

PQ, HLG = ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67
BT2020_MATRIX, LIMITED = 9, 1


def levels(red: float, green: float, blue: float) -> tuple[int, int, int]:
    """Y, Cb and Cr in ten bits of an R'G'B' signal from 0 to 1 (BT.2100)."""
    luma = 0.2627 * red + 0.6780 * green + 0.0593 * blue
    cb, cr = (blue - luma) / 1.8814, (red - luma) / 1.4746
    return round(64 + 876 * luma), round(512 + 896 * cb), round(512 + 896 * cr)


def flat(signal: tuple[float, float, float], trc: int) -> av.VideoFrame:
    """A frame of one colour."""
    frame = av.VideoFrame(64, 64, "yuv420p10le")
    for plane, level in zip(frame.planes, levels(*signal), strict=True):
        plane.update(np.full(plane.buffer_size // 2, level, np.uint16).tobytes())
    frame.colorspace, frame.color_range = BT2020_MATRIX, LIMITED
    frame.color_trc, frame.color_primaries = trc, ColorPrimaries.BT2020
    return frame


def shown(frame: av.VideoFrame) -> list[int]:
    picture = PictureMaker((32, 32), 0, Fraction(1)).model_input(frame)
    assert (picture == picture[0, 0]).all()
    return picture[0, 0].tolist()


# Signal levels of BT.2408 for a grey card of 18 %, for white and for what shines.
@pytest.mark.parametrize(
    ("trc", "signal", "low", "high"),
    [
        (PQ, 0.0, 0, 1),
        (PQ, 0.38, 104, 112),
        (PQ, 0.58, 236, 246),
        (PQ, 0.75, 250, 255),
        (HLG, 0.0, 0, 1),
        (HLG, 0.38, 104, 112),
        (HLG, 0.75, 236, 246),
        (HLG, 1.0, 250, 255),
    ],
)
def test_greys_are_as_bright_as_in_sdr(trc: int, signal: float, low: int, high: int) -> None:
    red, green, blue = shown(flat((signal,) * 3, trc))
    assert low <= green <= high
    assert max(abs(red - green), abs(blue - green)) <= 1


def test_what_shines_keeps_its_differences() -> None:
    """Guards against a sky that is one white."""
    found = [shown(flat((signal,) * 3, PQ))[0] for signal in (0.5, 0.58, 0.65, 0.75)]
    assert found == sorted(set(found))


@pytest.mark.parametrize(
    ("trc", "signal"),
    # BT.709's own red of 100 cd/m², in BT.2020.
    [(PQ, (0.462, 0.271, 0.177)), (HLG, (0.584, 0.198, 0.097))],
)
def test_a_colour_is_as_full_as_in_sdr(trc: int, signal: tuple[float, float, float]) -> None:
    red, green, blue = shown(flat(signal, trc))
    assert 180 <= red <= 192
    assert max(green, blue) < 40


def test_a_clip_says_it_to_its_frames(tmp_path: Path) -> None:
    """Guards against tags that are lost on the way from the file."""
    path = str(tmp_path / "pq.mp4")
    with av.open(path, "w") as container:
        stream: Any = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p10le"
        context = stream.codec_context
        context.colorspace, context.color_range = BT2020_MATRIX, LIMITED
        context.color_trc, context.color_primaries = PQ, ColorPrimaries.BT2020
        stream.options = {"preset": "ultrafast"}
        frame = flat((0.38,) * 3, PQ)
        frame.pts = 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with av.open(path) as container:
        (read,) = container.decode(video=0)
    assert 104 <= shown(read)[1] <= 112


@pytest.mark.parametrize("trc", [ColorTrc.UNSPECIFIED, ColorTrc.BT709, ColorTrc.BT2020_10])
def test_other_pictures_are_left_as_they_are(trc: int) -> None:
    """Guards against bytes that change for all that is no HDR."""
    frame = flat((0.6, 0.3, 0.2), trc)
    plain = frame.reformat(32, 32, "rgb24", interpolation=Interpolation.AREA, threads=1)
    assert shown(frame) == plain.to_ndarray()[0, 0].tolist()
