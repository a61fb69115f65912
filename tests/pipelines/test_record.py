"""A job's record beside its rows: what it keeps, and records that are older, newer or broken."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from longreel.errors import LongreelError, UsageError
from mod.checkpoint import find_checkpoint
from pipelines.ids import Recipe
from pipelines.job import SummarizeRequest, claim_output, job_recipe, recorded_request
from pipelines.record import check_job_id, new_job_id, read_record
from pipelines.sending import ready_to_send, request_to_resume

TINY = "longreel-tiny"


@pytest.fixture
def request_(tmp_path: Path) -> SummarizeRequest:
    (tmp_path / "a b.mp4").touch()
    return SummarizeRequest(
        (str(tmp_path / "a b.mp4"), "s3://in/ü"), str(tmp_path / "rows"), TINY, workers=3
    )


def recipe_of(request: SummarizeRequest) -> Recipe:
    return job_recipe(request, find_checkpoint(request.model))


def begun(request: SummarizeRequest) -> str:
    return claim_output(request.output, recipe_of(request), request)


def test_what_was_asked_for_can_be_asked_again(request_: SummarizeRequest) -> None:
    """Guards against a job whose sources or options are forgotten with its cluster."""
    job_id = begun(replace(request_, address="ray://host:10001"))
    assert request_to_resume(request_.output) == replace(request_, job_id=job_id)
    assert begun(request_) == job_id


def test_the_latest_run_is_what_is_resumed(request_: SummarizeRequest) -> None:
    """Guards against sources that were added later and lost on resume."""
    begun(request_)
    more = replace(request_, sources=(*request_.sources, "s3://in/more"))
    begun(more)
    assert request_to_resume(request_.output).sources == more.sources


def test_paths_are_kept_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a record that only means something in the folder it was made from."""
    monkeypatch.chdir(tmp_path)
    request = SummarizeRequest(("x/*.mp4", "https://me:hush@host/v.mp4"), str(tmp_path), TINY)
    begun(request)
    record = read_record(str(tmp_path))
    assert record is not None
    assert record["request"]["sources"] == [f"{tmp_path}/x/*.mp4", "https://host/v.mp4"]
    assert "hush" not in json.dumps(record)
    assert {"longreel", "python", "ray", "torch", "transformers"} <= set(record["versions"])


def old_record(request: SummarizeRequest) -> Path:
    """The record of a job that began before requests were recorded."""
    file = Path(request.output) / "_longreel" / "job.json"
    file.parent.mkdir(parents=True)
    file.write_text(
        json.dumps({"job_id": "old", "recipe": asdict(recipe_of(request)), "code_version": "0"})
    )
    return file


def test_a_record_without_a_request(request_: SummarizeRequest) -> None:
    """Guards against rows of an older version that a newer one cannot join or explain."""
    old_record(request_)
    with pytest.raises(UsageError, match="submit it with its own sources"):
        request_to_resume(request_.output)
    assert ready_to_send(request_).job_id == "old"
    assert begun(request_) == "old"
    assert request_to_resume(request_.output).sources == request_.sources


def test_a_record_of_a_newer_version(request_: SummarizeRequest) -> None:
    """Guards against an option that is dropped in silence."""
    begun(request_)
    record = read_record(request_.output)
    assert record is not None
    record["request"]["options"]["dreams"] = True
    with pytest.raises(UsageError, match="newer version: unknown dreams"):
        recorded_request(record, request_.output)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"job_id": "x"}'])
def test_something_else_in_its_place(request_: SummarizeRequest, text: str) -> None:
    """Guards against a traceback where a file was cut short."""
    old_record(request_).write_text(text)
    with pytest.raises(LongreelError, match=r"job\.json is not the record of a job"):
        begun(request_)


def test_nothing_in_its_place(tmp_path: Path) -> None:
    """Guards against a job begun by a mistyped resume."""
    with pytest.raises(UsageError, match=f"no job began in {tmp_path}"):
        request_to_resume(str(tmp_path))


def test_what_summarize_refuses_is_not_sent(request_: SummarizeRequest, tmp_path: Path) -> None:
    """Guards against an error that shows on the cluster and could have shown at home."""
    local = replace(request_, sources=request_.sources[:1])
    job_id = begun(local)
    assert ready_to_send(local).job_id == job_id
    for change, words in (
        ({"fps": 5.0}, "other settings"),
        ({"job_id": "another"}, f"belongs to job {job_id}"),
        ({"job_id": "a b"}, "--job-id"),
        ({"workers": -1}, "--workers"),
        ({"model": "none"}, "no model"),
        ({"sources": (str(tmp_path / "none.mp4"),)}, "no such file"),
    ):
        with pytest.raises(LongreelError, match=words):
            ready_to_send(replace(local, **change))


def test_paths_of_the_cluster_are_not_looked_at(tmp_path: Path) -> None:
    """Guards against a job refused for paths that only the cluster has."""
    request = SummarizeRequest((str(tmp_path / "none.mp4"),), "/proc/none", "/models/theirs")
    assert ready_to_send(request, look=False).model == "/models/theirs"
    with pytest.raises(UsageError, match="--fps"):
        ready_to_send(replace(request, fps=0), look=False)


@pytest.mark.parametrize("fps", [0, 1e-308, 1e-9])
def test_frames_that_are_too_far_apart_are_refused_at_once(tmp_path: Path, fps: float) -> None:
    """Guards against a job whose every video fails, on a grid that cannot be."""
    request = SummarizeRequest((str(tmp_path / "none.mp4"),), "/proc/none", "longreel-tiny")
    with pytest.raises(UsageError, match=r"--fps must lie in \[1e-06, 120\] frames a second"):
        ready_to_send(replace(request, fps=fps), look=False)


@pytest.mark.parametrize("job_id", ["a", "2026-01-31_night.1", "A" * 64, new_job_id()], ids=len)
def test_good_job_ids(job_id: str) -> None:
    """Guards against ids that users give and that are refused without need."""
    check_job_id(job_id)


@pytest.mark.parametrize("job_id", ["", "a b", "-a", ".", "../x", "a/b", "ü", "a\n", "A" * 65, "%"])
def test_bad_job_ids(job_id: str) -> None:
    """Guards against an id that breaks a path, a table or a shell."""
    with pytest.raises(UsageError, match="--job-id must be"):
        check_job_id(job_id)
