"""A user's narrated videos become the dialogues that their rows describe.

Guards against narrations that are learned at another frame than they were said of, and rows that
are dropped in silence.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from longreel.errors import UsageError
from mod.dialogue import Turn
from pipelines.footage import Clip, Footage, read_footage, read_narrations, split
from tests.videos import write_video

ROWS = [
    {"uri": "a.mp4", "time_s": 0.0, "text": "A start."},
    {"uri": "a.mp4", "time_s": 2.2, "text": "A change."},
    {"uri": "a.mp4", "time_s": 2.4, "text": "And another."},
    {"uri": "a.mp4", "time_s": 3.0, "text": "Twice.", "question": "How often?"},
    {"uri": "sub/b.mp4", "time_s": 1.0, "text": "B speaks."},
]


def write_footage(folder: Path) -> str:
    """Two clips of 6 s and 4 s, and the file of rows about them."""
    (folder / "sub").mkdir()
    for name, n_frames in (("a.mp4", 150), ("sub/b.mp4", 100)):
        write_video(folder / name, n_frames=n_frames)
    return _jsonl(folder, ROWS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("footage")
    write_footage(root)
    return root


def _jsonl(folder: Path, rows: Sequence[Mapping[str, object]], name: str = "rows.jsonl") -> str:
    file = folder / name
    file.write_text("\n".join(json.dumps(row) for row in rows))
    return str(file)


def _read(file: str) -> tuple[list[Clip], list[str]]:
    warnings: list[str] = []
    return read_footage(read_narrations([file]), 2.0, warnings.append), warnings


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_rows_land_on_the_grid(folder: Path, kind: str) -> None:
    """Guards times: a narration belongs to the first frame at which it is true."""
    if kind == "jsonl":
        file = _jsonl(folder, ROWS)
    else:
        file = str(folder / "rows.parquet")
        pq.write_table(pa.Table.from_pylist([{"question": None} | row for row in ROWS]), file)
    (a, b), warnings = _read(file)
    assert warnings == []
    assert (a.frames, b.frames) == (12, 8)
    assert a.texts == {0: "A start.", 5: "A change. And another."}
    assert a.turns == {6: [("How often?", "Twice.")]}
    assert b.texts == {2: "B speaks."}


def test_a_stretch_holds_its_own_frames_words_and_questions(folder: Path) -> None:
    clips, _ = _read(_jsonl(folder, ROWS))
    footage = Footage(clips, fps=2.0, size=32, lengths=[8], batch_frames=32)
    found = footage.stretch(clips[0], 4, 10)
    assert found.frames.shape == (6, 32, 32, 3)
    assert found.texts == [None, "A change. And another.", None, None, None, None]
    assert found.turns == (Turn(3, "How often?", "Twice."),)
    whole = footage.stretch(clips[0], 0, 12)
    assert np.array_equal(whole.frames[4:10], found.frames)


def test_batches_follow_from_the_step_alone(folder: Path) -> None:
    clips, _ = _read(_jsonl(folder, ROWS))
    footage = Footage(clips, fps=2.0, size=32, lengths=[4, 8], batch_frames=16)

    def draw() -> list[list[str | None]]:
        return [d.texts for d in footage.dialogues(7, np.random.default_rng([0, 7]))]

    assert draw() == draw()
    assert sum(len(texts) for texts in draw()) <= 16


def test_what_cannot_be_used_is_named_and_the_rest_goes_on(folder: Path) -> None:
    (folder / "broken.mp4").write_text("no video")
    rows = [
        *ROWS,
        {"uri": "gone.mp4", "time_s": 1, "text": "x"},
        {"uri": "broken.mp4", "time_s": 1, "text": "x"},
        {"uri": "a.mp4", "time_s": 99, "text": "too late"},
    ]
    clips, warnings = _read(_jsonl(folder, rows))
    assert len(clips) == 2
    assert len(warnings) == 3
    for text in ("gone.mp4", "broken.mp4", "99.0 s"):
        assert sum(text in warning for warning in warnings) == 1


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({"time_s": 1, "text": "x"}, "no column 'uri'"),
        ({"uri": "a.mp4", "time_s": "soon", "text": "x"}, "row 1 .* has no time_s"),
        ({"uri": "a.mp4", "time_s": -1, "text": "x"}, "row 1 .* has no time_s"),
        ({"uri": "a.mp4", "time_s": True, "text": "x"}, "row 1 .* has no time_s"),
        ({"uri": "a.mp4", "time_s": float("inf"), "text": "x"}, "row 1 .* has no time_s"),
        ({"uri": "http://a/b.mp4", "time_s": 1, "text": "x"}, "row 1 .* has no usable uri: .*http"),
        ({"uri": "a\0b.mp4", "time_s": 1, "text": "x"}, "row 1 .* has no usable uri"),
        ({"uri": "a.mp4", "time_s": 1, "text": " "}, "row 1 .* has no text"),
        ({"uri": "", "time_s": 1, "text": "x"}, "row 1 .* has no uri"),
        ({"uri": "a.mp4", "time_s": 1, "text": 5}, "holds int, not text"),
        ({"uri": "gone.mp4", "time_s": 1, "text": "x"}, "no usable video"),
    ],
)
def test_rows_that_say_nothing_are_refused(
    folder: Path, row: dict[str, object], named: str
) -> None:
    with pytest.raises(UsageError, match=named):
        _read(_jsonl(folder, [row], "bad.jsonl"))


@pytest.mark.parametrize(
    ("columns", "named"),
    [
        ({"uri": ["a.mp4"] * 2, "time_s": [1.0, None]}, "row 2 .* has no time_s"),
        ({"uri": ["a.mp4"] * 2, "time_s": [1.0, float("nan")]}, "row 2 .* has no time_s"),
        ({"uri": ["a.mp4", None], "time_s": [1.0, 2.0]}, "row 2 .* has no uri"),
        ({"uri": [1, 2], "time_s": [1.0, 2.0]}, "column 'uri' .* holds int, not text"),
        ({"uri": ["a.mp4"] * 2, "time": [1.0, 2.0]}, "no column 'time_s'; .* uri, time, text"),
    ],
)
def test_parquet_that_says_nothing_is_refused(
    folder: Path, columns: dict[str, list[object]], named: str
) -> None:
    file = str(folder / "bad.parquet")
    pq.write_table(pa.table(columns | {"text": ["x", "y"]}), file)
    with pytest.raises(UsageError, match=named):
        _read(file)


def test_parquet_that_was_cut_off_is_named(folder: Path) -> None:
    file = folder / "cut.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS[:3]), file)
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(UsageError, match=r"cut\.parquet is not a readable Parquet file"):
        _read(str(file))


def test_a_folder_without_tables_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no Parquet, JSONL or CSV file"):
        read_narrations([str(tmp_path)])


def test_held_out_clips_are_never_learned_from(folder: Path) -> None:
    clips, _ = _read(_jsonl(folder, ROWS))
    uris = [clip.info.uri for clip in clips]
    learned, measured = split(clips, uris, 0.1)
    assert len(learned) == len(measured) == 1
    assert learned[0].info.uri != measured[0].info.uri
    assert split(clips[:1], uris[:1], 0.5) == (clips[:1], [])
    assert split(clips, uris, 0.0)[1] == []


def test_what_is_held_out_does_not_depend_on_what_can_be_read(folder: Path) -> None:
    """Guards measured clips: a video that one worker cannot reach has it learn from another's."""
    clips, _ = _read(_jsonl(folder, ROWS))
    uris = [clip.info.uri for clip in clips]
    (learned,), (measured,) = split(clips, uris, 0.5)
    assert split([learned], uris, 0.5) == ([learned], [])
    with pytest.raises(UsageError, match="none of the 1 videos to learn from is usable"):
        split([measured], uris, 0.5)
