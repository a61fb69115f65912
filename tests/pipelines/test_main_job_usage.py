"""What a job refuses before it starts anything: one line, exit status 2, nothing written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pipelines.job_runs import complaint, longreel

pytestmark = pytest.mark.slow

#: A start of Ray alone takes longer; importing what a job needs on a busy machine does not.
REFUSED_WITHIN_S = 30.0


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Refusals come before anything is read, so that these bytes are no video does no harm."""
    path = tmp_path_factory.mktemp("usage") / "a.mp4"
    path.write_bytes(b"x")
    return path


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--model", "no-such-model"),
        ("--replicas", "0"),
        ("--replicas", "3:1"),
        ("--replicas", "many"),
        ("--fps", "0"),
        ("--fps", "nan"),
        ("--fps", "often"),
        ("--segment-seconds", "-1"),
        ("--segment-seconds", "inf"),
        ("--keep-ratio", "0"),
        ("--keep-ratio", "1.5"),
        ("--router", "best"),
        ("--router", "redundancy:deep"),
        ("--silence-threshold", "2"),
        ("--prompt", "caf\udce9"),
        ("--workers", "-1"),
        ("--gpus-per-replica", "-1"),
        ("--replicas", "99999"),
        ("--gpus-per-replica", "99999"),
    ],
)
def test_bad_options_are_refused_at_once(
    video: Path, tmp_path: Path, option: str, value: str
) -> None:
    """Guards against a bad value found only in a traceback once a cluster has started."""
    run = longreel("summarize", str(video), "-o", str(tmp_path / "rows"), option, value)
    assert run.code == 2, run.said
    assert "Traceback" not in run.err
    last = run.err.strip().splitlines()[-1]
    assert option.strip("-") in last, run.said
    assert "starting" not in run.err
    assert run.took_s < REFUSED_WITHIN_S
    assert not (tmp_path / "rows").exists()


def test_a_folder_without_videos(tmp_path: Path) -> None:
    """Guards against a job that does nothing and calls that success."""
    (tmp_path / "empty").mkdir()
    run = longreel("summarize", str(tmp_path / "empty"), "-o", str(tmp_path / "rows"))
    assert run.code == 2, run.said
    assert str(tmp_path / "empty") in complaint(run)
    assert not (tmp_path / "rows").exists()


@pytest.mark.parametrize("where", ["{tmp}/file", "{tmp}/file/rows", "/proc/nowhere/rows"])
def test_a_place_that_cannot_be_written(video: Path, tmp_path: Path, where: str) -> None:
    """Guards against hours of work whose rows then have nowhere to go."""
    (tmp_path / "file").write_text("mine")
    dest = where.format(tmp=tmp_path)
    run = longreel("summarize", str(video), "-o", dest)
    assert run.code in (1, 2), run.said
    assert dest in complaint(run)
    assert "starting" not in run.err
    assert (tmp_path / "file").read_text() == "mine"
    assert run.took_s < REFUSED_WITHIN_S


@pytest.mark.parametrize("manifest", ["name,size\na.mp4,3\n", "uri\n"])
def test_a_manifest_that_names_nothing(tmp_path: Path, manifest: str) -> None:
    """Guards against a manifest without its ``uri`` column, or without rows, read as success."""
    path = tmp_path / "list.csv"
    path.write_text(manifest)
    run = longreel("summarize", str(path), "-o", str(tmp_path / "rows"))
    assert run.code == 2, run.said
    assert str(path) in complaint(run)
    assert not (tmp_path / "rows").exists()
