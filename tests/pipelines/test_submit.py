"""Jobs sent to a real cluster: their rows, their log, and what stops them and starts them again."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from mod.checkpoint import find_checkpoint
from pipelines.job import SummarizeRequest, claim_output, job_recipe
from tests.pipelines.job_runs import (
    JOB_TIMEOUT_S,
    NOISE,
    Row,
    Run,
    complaint,
    longreel,
    name_of,
    rows,
    started,
)
from tests.pipelines.jobs_cluster import Cluster, cluster
from tests.videos import write_video, x264

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long]

SECRETS = {"AWS_ACCESS_KEY_ID": "AKIAVERYPRIVATE", "AWS_SECRET_ACCESS_KEY": "hush+hush/42"}
OPTIONS = ("--fps", "6", "--segment-seconds", "1")
ODD = ("two  words' ü#%\".mp4", "-dash $HOME `id` \\n;&.mp4")
LONG = "long.mp4"
#: What two runs may differ in: who did it when, and how long it took.
OWN = ("job_id", "decode_s", "model_s", "attempt")


@dataclass(frozen=True)
class User:
    """Someone at a shell with credentials of their own, and a cluster's address and token."""

    cluster: Cluster

    def does(self, *arguments: str) -> Run:
        # Ray itself sends its token to a named cluster in this mode only; `longreel jobs` asks.
        mode = {"RAY_AUTH_MODE": "token"} if arguments[0] == "summarize" else {}
        return longreel(*arguments, variables={**SECRETS, **self.cluster.environment, **mode})

    def table(self) -> list[Row]:
        """What Ray tells everyone of its jobs."""
        headers = {"Authorization": f"Bearer {self.cluster.token}"}
        return list(httpx.get(f"{self.cluster.address}/api/jobs/", headers=headers).json())


@pytest.fixture(scope="module")
def user() -> Iterator[User]:
    with cluster() as found:
        yield User(found)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("submit") / "in put"
    folder.mkdir()
    for name in ODD:
        write_video(folder / name, n_frames=50, options=x264())
    (folder / "empty.mp4").write_bytes(b"")
    # Long enough that a command that takes its time to start finds work left.
    write_video(folder / LONG, n_frames=5000, options=x264())
    return folder


@pytest.fixture(scope="module")
def undisturbed(user: User, videos: Path) -> Path:
    """Rows of all the videos, made by ``longreel summarize`` in a shell on this machine."""
    dest = videos.parent / "undisturbed"
    where = ("--address", user.cluster.gcs)
    run = user.does("summarize", str(videos), "-o", str(dest), *OPTIONS, *where)
    assert run.code == 3, run.said
    return dest


def content(dest: Path, names: set[str]) -> dict[str, dict[str, Row]]:
    """Rows of some files without what each run has of its own, by id; fails at a second one."""
    found = {}
    for part, key in (("segments", "segment_id"), ("videos", "video_id")):
        chosen = [row for row in rows(dest, part) if name_of(row) in names]
        found[part] = {row[key]: {k: v for k, v in row.items() if k not in OWN} for row in chosen}
        assert len(found[part]) == len(chosen)
    return found


def all_content(dest: Path) -> dict[str, dict[str, Row]]:
    return content(dest, {name_of(row) for row in rows(dest, "videos")})


def test_a_submitted_job_does_what_summarize_does(
    user: User, videos: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """Guards against names lost in a shell, other rows than at home, Ray's chatter in the log,
    secrets in the cluster's job table, and jobs of others called ours."""
    dest = tmp_path / "its 'rows' ü"
    names = [*ODD, "empty.mp4"]
    sources = [str(videos / name) for name in names]
    run = user.does(
        "submit", *sources, "-o", str(dest), *OPTIONS, "--job-id", "odd.names", "--wait"
    )
    assert run.code == 3, run.said
    first, _, said = run.out.partition("\n")
    assert first == "odd.names"
    assert all_content(dest) == content(undisturbed, set(names))
    assert {row["job_id"] for row in rows(dest, "segments")} == {"odd.names"}
    assert said.startswith("finding videos\n")
    assert "rows in" in said.splitlines()[-1], said
    assert [word for word in NOISE if word in run.out + run.err] == [], run.said

    logs = user.does("jobs", "logs", "odd.names")
    assert (logs.code, logs.out) == (0, said)
    status = user.does("jobs", "status", "odd.names")
    assert status.code == 0, status.said
    n = len(rows(dest, "segments"))
    for words in ("finished, not all ok", "Ray: FAILED", f"{n}/{n} done", "3/3 done, 1 failed"):
        assert words in status.out, status.said
    assert str(dest) in status.out

    other = _another_persons_job(user)
    listed = user.does("jobs", "list")
    assert [line.split()[0] for line in listed.out.splitlines()] == ["job", "odd.names"]
    assert "no job" in complaint(user.does("jobs", "status", other))
    told = json.dumps(user.table())
    assert "odd.names" in told
    for secret in (*SECRETS.values(), user.cluster.token, "AWS_"):
        assert secret not in told
    (ours,) = [job for job in user.table() if job["submission_id"] == "odd.names"]
    assert ours["runtime_env"]["working_dir"].startswith("gcs://"), "the checkout was not sent"


def _another_persons_job(user: User) -> str:
    headers = {"Authorization": f"Bearer {user.cluster.token}"}
    answer = httpx.post(
        f"{user.cluster.address}/api/jobs/", headers=headers, json={"entrypoint": "echo mine"}
    )
    return str(answer.json()["submission_id"])


def test_cancelled_midway_then_resumed(
    user: User, videos: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """Guards against work lost by a cancel, done twice by a resume, or two drivers on one DEST."""
    dest = tmp_path / "rows"
    submit = ("submit", str(videos / LONG), "-o", str(dest), *OPTIONS)
    sent = user.does(*submit)
    assert sent.code == 0, sent.said
    job_id = sent.out.strip()
    assert f"jobs logs {job_id} --follow" in sent.err
    for again in (submit, ("jobs", "resume", job_id)):
        refused = user.does(*again)
        assert refused.code == 2, refused.said
        assert job_id in complaint(refused)
    told = _await_more_than_written(user, job_id, dest)
    cancelled = user.does("jobs", "cancel", job_id)
    assert cancelled.code == 0, cancelled.said
    kept = {row["segment_id"]: row for row in rows(dest, "segments")}
    planned = len(rows(dest, "_longreel/plan"))
    assert told <= len(kept) < planned, "lost what was worked out, or nothing was left to do"
    assert f"{job_id} is cancelled; {len(kept)}/{planned} segments" in cancelled.out
    assert f"jobs resume {job_id}" in cancelled.err
    said = user.does("jobs", "logs", job_id).out
    assert said.splitlines()[-1].startswith("longreel: interrupted")
    assert [word for word in (*NOISE, "INFO", "ERROR") if word in said] == [], said
    assert "cancelled" in user.does("jobs", "status", job_id).out

    resumed = user.does("jobs", "resume", job_id, "--wait")
    assert resumed.code == 0, resumed.said
    assert f"{len(kept)}/{planned} segments" in resumed.out
    assert all_content(dest) == content(undisturbed, {LONG})
    after = {row["segment_id"]: row for row in rows(dest, "segments")}
    assert {name: after[name] for name in kept} == kept
    assert f"as {job_id}-2)" in user.does("jobs", "status", job_id).out
    for verb in ("cancel", "resume"):
        refused = user.does("jobs", verb, job_id)
        assert refused.code == 2, refused.said
        assert job_id in complaint(refused)


def _await_more_than_written(user: User, job_id: str, dest: Path) -> int:
    """Segments that the job's log calls done, once they are more than lie in its output."""
    deadline = time.monotonic() + JOB_TIMEOUT_S
    told = [0]
    while not (dest / "segments").is_dir() or told[-1] <= len(rows(dest, "segments")):
        assert time.monotonic() < deadline
        said = user.does("jobs", "logs", job_id).out
        told = [0, *map(int, re.findall(r"^narrating: (\d+)/", said, re.MULTILINE))]
    return told[-1]


def test_resumed_by_its_place_on_a_cluster_that_never_knew_it(
    user: User, videos: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """Guards against a job that cannot go on once the cluster that began it is gone."""
    dest = tmp_path / "rows"
    request = SummarizeRequest(
        sources=(str(videos / ODD[0]),), output=str(dest), model="longreel-tiny", fps=6, segment_s=1
    )
    job_id = claim_output(str(dest), job_recipe(request, find_checkpoint(request.model)), request)
    resumed = user.does("jobs", "resume", str(dest), "--wait")
    assert resumed.code == 0, resumed.said
    assert resumed.out.splitlines()[0] == job_id
    assert all_content(dest) == content(undisturbed, {ODD[0]})


def test_a_job_that_failed_says_why_and_can_be_resumed(
    user: User, videos: Path, tmp_path: Path
) -> None:
    """Guards against a failure told as success or without its reason, and a dead end after it."""
    late, dest = tmp_path / "late.mp4", tmp_path / "rows"
    arguments = ("submit", str(late), "-o", str(dest), "--job-id", "late")
    assert str(late) in complaint(user.does(*arguments))
    failed = user.does(*arguments, "--no-check", "--no-upload", "--wait")
    assert failed.code == 2, failed.said
    status = user.does("jobs", "status", "late").out
    assert "failed (Ray: FAILED" in status
    assert f"{late}: no such file" in status.split("reason")[1].splitlines()[0]
    (ours,) = [job for job in user.table() if job["submission_id"] == "late"]
    assert "working_dir" not in ours["runtime_env"]
    late.symlink_to(videos / ODD[0])
    assert user.does("jobs", "resume", "late", "--wait").code == 0
    assert len(rows(dest, "videos")) == 1


def test_following_can_be_left_and_the_job_goes_on(
    user: User, videos: Path, tmp_path: Path
) -> None:
    """Guards against Ctrl-C at a log that takes the job with it."""
    arguments = ("submit", str(videos / ODD[0]), "-o", str(tmp_path / "rows"), "--job-id", "left")
    with started(*arguments, "--wait", variables=user.cluster.environment) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(2)]
        assert said == ["left\n", "finding videos\n"]
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "jobs cancel left" in err
    assert "Traceback" not in err
    followed = user.does("jobs", "logs", "left", "--follow")
    assert followed.code == 0, followed.said
    assert "rows in" in followed.out.splitlines()[-1]
    assert len(rows(tmp_path / "rows", "videos")) == 1


@pytest.mark.parametrize("verb", ["status", "logs", "cancel", "resume"])
def test_an_unknown_job_is_one_line(user: User, verb: str) -> None:
    """Guards against a traceback, or someone else's job, for a mistyped id."""
    run = user.does("jobs", verb, "no-such-job")
    assert run.code == 2, run.said
    assert "'no-such-job'" in complaint(run)


def test_a_token_is_asked_for_by_name(user: User) -> None:
    """Guards against a guarded cluster that one cannot tell from a broken one."""
    run = longreel("jobs", "list", "--address", user.cluster.address, variables={"HOME": "/"})
    assert run.code == 1, run.said
    assert "RAY_AUTH_TOKEN" in complaint(run)
