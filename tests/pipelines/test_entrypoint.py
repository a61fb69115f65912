"""What is sent to a cluster: a command line that a shell takes apart as meant, and the code."""

from __future__ import annotations

import json
import os
import subprocess
import tomllib
import zipfile
from dataclasses import fields
from pathlib import Path

import pytest
from ray._private.runtime_env.packaging import create_package
from typer.core import TyperGroup
from typer.main import get_command

from actors.keepout import KEEP_OUT
from longreel.cli import app
from longreel.deployed import ServiceArgs
from longreel.errors import StorageError, UsageError
from pipelines import jobs_service
from pipelines.entrypoint import (
    OPTIONS,
    PACKAGES,
    checkout,
    entrypoint,
    placed,
    runtime_env,
)
from pipelines.job import SummarizeRequest
from pipelines.jobs_service import jobs_deployment
from serve.routes.context import ApiSettings

ODD = (
    "two  words.mp4",
    'it\'s "quoted".mp4',
    "ü %20#?&;|<>.mp4",
    "$HOME `id` $(id) \\n.mp4",
    "-o",
    "--",
    "new\nline.mp4",
    "*.[a-z]",
    "s3://bucket/ä b/",
)
SPELT = SummarizeRequest(
    sources=ODD,
    output="s3://rows/it's here",
    model="/models/my model",
    fps=1.5,
    segment_s=12.0,
    prompt="Say 'what'\nyou \"see\" $HOME",
    keep_ratio=0.3,
    router="redundancy:1,3",
    quantize="int8",
    silence_threshold=0.1,
    mode="stream",
    summarizer="http://lm:8000/v1",
    summarizer_model="big one",
    workers=3,
    min_replicas=1,
    max_replicas=4,
    num_gpus=0.5,
)


@pytest.fixture
def reached(tmp_path: Path) -> Path:
    """A folder with a ``python`` that writes down how it was called."""
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(
        "#!/usr/bin/env -S python3 -S\nimport json, os, sys\n"
        f"json.dump([os.getpid(), sys.argv[1:]], open({str(tmp_path / 'called')!r}, 'w'))\n"
    )
    python.chmod(0o755)
    return tmp_path


def called(reached: Path, line: str) -> tuple[int, int, list[str]]:
    """Process ids of the shell and of what it ran, and the arguments of that."""
    path = f"{reached / 'bin'}{os.pathsep}{os.environ['PATH']}"
    shell = subprocess.Popen(line, shell=True, env={**os.environ, "PATH": path})
    assert shell.wait(timeout=60) == 0
    pid, arguments = json.loads((reached / "called").read_text())
    return shell.pid, pid, arguments


def test_a_shell_hands_on_every_name_as_it_is(reached: Path) -> None:
    """Guards against names that a shell splits, expands or runs, and against a shell that a
    signal stops in place of the driver."""
    shell, driver, arguments = called(reached, entrypoint(SPELT, "nightly-1"))
    assert arguments[:3] == ["-m", "longreel.cli", "summarize"]
    assert tuple(arguments[arguments.index("--") + 1 :]) == ODD
    assert driver == shell


def test_the_command_line_asks_for_the_same_request(reached: Path) -> None:
    """Guards against an option lost or changed on the way to the cluster."""
    _, _, arguments = called(reached, entrypoint(SPELT, "nightly-1"))
    program = get_command(app)
    assert isinstance(program, TyperGroup)
    command = program.commands["summarize"]
    with command.make_context("summarize", arguments[3:]) as context:
        given = context.params
    assert tuple(given.pop("sources")) == ODD
    assert given == {
        "output": SPELT.output,
        "model": SPELT.model,
        "fps": SPELT.fps,
        "segment_seconds": SPELT.segment_s,
        "prompt": SPELT.prompt,
        "keep_ratio": SPELT.keep_ratio,
        "router": SPELT.router,
        "quantize": SPELT.quantize,
        "silence_threshold": SPELT.silence_threshold,
        "mode": SPELT.mode,
        "summarizer": SPELT.summarizer,
        "summarizer_model": SPELT.summarizer_model,
        "workers": SPELT.workers,
        "replicas": "1:4",
        "gpus_per_replica": SPELT.num_gpus,
        "job_id": "nightly-1",
        "address": "auto",
    }


def test_every_field_of_a_request_is_sent() -> None:
    """Guards against a new option that works at home and is forgotten on a cluster."""
    otherwise = {"sources", "output", "job_id", "address", "min_replicas", "max_replicas"}
    assert {field.name for field in fields(SummarizeRequest)} == {*OPTIONS, *otherwise}


def test_more_sources_than_a_command_line_holds() -> None:
    """Guards against a job that the cluster's shell refuses without a word."""
    many = SummarizeRequest(
        sources=tuple(f"/videos/{n:050d}.mp4" for n in range(2000)), output="/rows", model="m"
    )
    with pytest.raises(UsageError, match=r"2000 sources .* manifest"):
        entrypoint(many, "many")


def test_local_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against paths that mean something else in the job's own folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "mine").mkdir(parents=True)
    sources = ("a b.mp4", "../x/*.mkv", "s3://bucket/in/", "/abs.mp4")
    found = placed(SummarizeRequest(sources=sources, output="rows/", model="models/mine"))
    parent = tmp_path.parent
    assert found.sources == (
        f"{tmp_path}/a b.mp4",
        f"{parent}/x/*.mkv",
        "s3://bucket/in/",
        "/abs.mp4",
    )
    assert found.output == f"{tmp_path}/rows"
    assert found.model == f"{tmp_path}/models/mine"
    for name in ("longreel-tiny", "Qwen/Qwen3-VL-2B-Instruct"):
        assert placed(SummarizeRequest(("a",), "rows", name)).model == name


def test_an_address_with_a_password_is_not_sent() -> None:
    """Guards against a password in a job table that everyone reads."""
    request = SummarizeRequest(("https://me:hush@host/a.mp4",), "/rows", "longreel-tiny")
    with pytest.raises(StorageError) as refused:
        placed(request)
    assert "hush" not in str(refused.value)


def test_only_a_checkout_is_sent(tmp_path: Path) -> None:
    """Guards against site-packages, or a folder that happens to hold longreel, sent whole."""
    for place in ("checkout", "venv/lib/python3.12/site-packages", "dist-packages", "image"):
        (tmp_path / place / "longreel").mkdir(parents=True)
        if place != "image":
            (tmp_path / place / "pyproject.toml").touch()
    assert checkout(tmp_path / "checkout" / "longreel") == tmp_path / "checkout"
    for place in ("venv/lib/python3.12/site-packages", "dist-packages", "image"):
        assert checkout(tmp_path / place / "longreel") is None
    here = Path(__file__).parents[2]
    assert checkout(here / "longreel") == here
    assert "working_dir" not in runtime_env(None)


def test_a_job_is_kept_out_of_what_its_sender_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the state store of a service with keys against the jobs of its clients."""
    monkeypatch.delenv(KEEP_OUT, raising=False)
    assert KEEP_OUT not in runtime_env(None)["env_vars"]
    monkeypatch.setattr(jobs_service, "Jobs", lambda address: None)
    bound = jobs_deployment("http://127.0.0.1:9", keep_out="/var/lib/longreel")
    assert bound is not None
    given = bound._bound_deployment.ray_actor_options["runtime_env"]["env_vars"]
    monkeypatch.setenv(KEEP_OUT, given[KEEP_OUT])
    assert runtime_env(None)["env_vars"][KEEP_OUT] == "/var/lib/longreel"
    keyed = ServiceArgs(state="/var/lib/longreel", api=ApiSettings(keys=True))
    assert keyed.keep_out == "/var/lib/longreel"
    assert ServiceArgs(state="/var/lib/longreel").keep_out is None


def test_the_packages_are_sent_and_nothing_else(tmp_path: Path) -> None:
    """Guards against videos, environments and results in a checkout that are sent with it, and
    against the bundled model left at home."""
    root = tmp_path / "checkout"
    wanted = {f"{name}/__init__.py" for name in PACKAGES}
    wanted |= {"mod/checkpoints/longreel-tiny/model.safetensors", "longreel/report.css"}
    unwanted = {".git/x", ".venv/lib/x.py", "tests/x.py", "bench/results/x", "demo/x", "a", ".b"}
    unwanted |= {"!videos/x.mp4", "#1 [x]/x.mp4", "mod/__pycache__/x.pyc", "pyproject.toml"}
    for name in wanted | unwanted:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    package = tmp_path / "package.zip"
    excludes = runtime_env(root)["excludes"]
    create_package(str(root), package, include_gitignore=True, excludes=excludes)
    assert set(zipfile.ZipFile(package).namelist()) == wanted


def test_every_package_that_a_job_needs_is_sent() -> None:
    """Guards against a new package that is installed but not sent."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    packages = {name.split(".")[0] for name in project["tool"]["setuptools"]["packages"]}
    assert packages - {"infra", "bench"} == set(PACKAGES)
