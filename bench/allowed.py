"""What in the docs reads like a measurement and is none, each with the reason."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Allowed:
    """Words of a page that need no result behind them.

    Attributes:
        page: from the checkout's root.
        words: a regular expression for them, on the page as ``bench.check`` reads it.
        why: they need none.
    """

    page: str
    words: str
    why: str


_SETTING = "a setting or a limit, no measurement"
_SIZE = "the size of files that are in the checkout, or published elsewhere"
_WORDING = "compares what comes in with what is taken, and claims no speed"
_CARD = "mod/checkpoints/longreel-tiny/README.md"
_CLIPS = (
    "counted by tests/pipelines/test_tiny_on_film.py on clips that are not in the repository; the "
    "page says that it is an example and no rate"
)

ALLOWED: tuple[Allowed, ...] = (
    Allowed("README.md", r"3\.8 million weights \(8 MB\)", _SIZE),
    Allowed("docs/api.md", r"stopped coming for 30 s", _SETTING),
    Allowed("docs/api.md", r"faster than the (?:session's|key may push|model is seen)", _WORDING),
    Allowed("docs/assemble.md", r"a probability of 0\.725", "a setting of another project"),
    Allowed("docs/bulk.md", r"after 20 seconds without a sign of life", _SETTING),
    Allowed("docs/bulk.md", r"keeps the last 32 MiB|fetches of 4 MiB at most", _SETTING),
    Allowed("docs/bulk.md", r"waits 50 ms", _SETTING),
    Allowed("docs/bulk.md", r"half of each GOP of a second, a quarter of", "follows from the grid"),
    Allowed("docs/capacity.md", r"Assumed, and not measured: 30 s segments", "said to be assumed"),
    Allowed("docs/guide.md", r"3 GB of disk", "what is asked of the reader's machine"),
    Allowed("docs/guide.md", r"2 GB lie in", "the size of the pinned packages"),
    Allowed("docs/jobs.md", r"sent along \(9 MB;", _SIZE),
    Allowed(
        "docs/open-models.md",
        r"\| [\d.]+ GiB(?: with Llama 3 and SigLIP)? \| [\d.]+ MiB \|",
        "published sizes, and bytes of cache reckoned from configs",
    ),
    Allowed("docs/open-models.md", r"is no faster", "disclaims a gain"),
    Allowed("docs/operations.md", r"Autoscaling aims at 0\.85", _SETTING),
    Allowed("docs/operations.md", r"sends faster than real time", _WORDING),
    Allowed("docs/promises.md", r"a source faster than the model", _WORDING),
    Allowed("docs/security.md", r"let in for 60 seconds|a fetch to 60 seconds", _SETTING),
    Allowed("docs/security.md", r"\(512 MiB, 1 MiB without media\)", _SETTING),
    Allowed("docs/serving.md", r"0\.85 of a replica|cache memory in use \| 0\.85", _SETTING),
    Allowed("docs/serving.md", r"catching up in 10 s|will be in 45 seconds", _SETTING),
    Allowed("docs/serving.md", r"is busy half the time", "an example that explains a rule"),
    Allowed("docs/serving.md", r"wait for up to 20 seconds", _SETTING),
    Allowed("docs/serving.md", r"of 1, 2 or 4 frames a second", "said to be assumed"),
    Allowed(
        "docs/serving.md", r"512 MiB with media, 1 MiB without; 2 GiB of all at a time", _SETTING
    ),
    Allowed("docs/serving.md", r"408 after 30 s", _SETTING),
    Allowed("docs/serving.md", r"512 MiB of pixels in one piece", _SETTING),
    Allowed("docs/serving.md", r"10 s a picture, `code` \(60 s\) a minute of video", _SETTING),
    Allowed("docs/serving.md", r"64 MiB, 1 KiB a message at least", _SETTING),
    Allowed(_CARD, r"streams of 30 s|camera motions of 1\.5 s", "how it is measured"),
    Allowed(_CARD, r"are right \(F1 0\.81\)|On 43 seconds of real film", _CLIPS),
    Allowed(_CARD, r"true ones \(F1 0\.89;|are right 24 times of 25", _CLIPS),
    Allowed(_CARD, r"MoD \(r = 0\.2\)", "a keep ratio"),
)
