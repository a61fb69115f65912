"""A job whose model does not come up."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import mod
from tests.pipelines.job_runs import NOISE, longreel
from tests.videos import write_video, x264

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long]


def test_a_model_that_does_not_come_up_ends_the_job(tmp_path: Path) -> None:
    """Guards against segments that wait for ever, or get failed rows, for a model that is bad."""
    video = write_video(tmp_path / "a.mp4", options=x264())
    model = tmp_path / "model"
    shutil.copytree(Path(*mod.__path__) / "checkpoints" / "longreel-tiny", model)
    # Only who loads the model looks into it.
    (model / "tokenizer.json").write_text("{}")
    run = longreel("summarize", video.uri, "-o", str(tmp_path / "rows"), "--model", str(model))
    assert run.code == 1, run.said
    assert "the model service did not start" in run.err, run.said
    assert [word for word in NOISE if word in run.out + run.err] == [], run.said
    assert not list((tmp_path / "rows" / "segments").glob("*.parquet"))
