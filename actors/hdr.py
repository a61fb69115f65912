"""High dynamic range to what a picture of eight bits shows: PQ and HLG as BT.709.

The model and a JPEG know one kind of picture. What PQ or HLG say, taken for that, is pale and grey.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorTrc

#: Full scale of a 16-bit picture.
_FULL = 65535
#: cd/m² of white paper in a graded picture (ITU-R BT.2408), which SDR shows as its white.
_WHITE = 203.0
#: Of the nominal HLG display (BT.2100).
_HLG_PEAK, _HLG_GAMMA = 1000.0, 1.2
#: Share of SDR's white from which on what is brighter is pressed together, so that it keeps its
#: differences.
_KNEE = 0.75
#: Of an SDR display (BT.1886).
_GAMMA = 2.4
#: Linear light from BT.2020's primaries to BT.709's (BT.2087), and luminance of the former.
_NARROWED = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]],
    np.float32,
)
_LUMINANCE = np.array([0.2627, 0.6780, 0.0593], np.float32)


def is_hdr(frame: VideoFrame) -> bool:
    """Whether the frame says that it is PQ or HLG."""
    return frame.color_trc in (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67)


def to_sdr(picture: npt.NDArray[np.uint16], frame: VideoFrame) -> npt.NDArray[np.uint8]:
    """BT.709 of an (h, w, 3) RGB picture in 16 bits that has the colours of ``frame``."""
    if frame.color_trc == ColorTrc.SMPTE2084:
        light = _pq_light()[picture]
    else:
        light = _hlg_light()[picture]
        luminance = np.maximum(light @ _LUMINANCE, 1e-6)[..., None]
        light *= _HLG_PEAK / _WHITE * luminance ** (_HLG_GAMMA - 1)
    if frame.color_primaries != ColorPrimaries.BT709:
        light = light @ _NARROWED.T
    above = np.maximum(light - _KNEE, 0)
    light = np.clip(light, 0, _KNEE) + above * (1 - _KNEE) / (above + 1 - _KNEE)
    return _shown()[(light * _FULL).astype(np.uint16)]


@lru_cache(1)
def _pq_light() -> npt.NDArray[np.float32]:
    """Light of each PQ value as a share of SDR's white (SMPTE ST 2084)."""
    m1, m2 = 2610 / 16384, 2523 / 4096 * 128
    c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    root = (np.arange(_FULL + 1) / _FULL) ** (1 / m2)
    light = (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)
    return (light * 10_000 / _WHITE).astype(np.float32)


@lru_cache(1)
def _hlg_light() -> npt.NDArray[np.float32]:
    """Light of each HLG value in the scene, from 0 to 1 (BT.2100)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    value = np.arange(_FULL + 1) / _FULL
    light = np.where(value <= 0.5, value**2 / 3, (np.exp((value - c) / a) + b) / 12)
    return light.astype(np.float32)


@lru_cache(1)
def _shown() -> npt.NDArray[np.uint8]:
    """What an SDR display needs for each share of its white."""
    share = np.arange(_FULL + 1) / _FULL
    return np.round(255 * share ** (1 / _GAMMA)).astype(np.uint8)
