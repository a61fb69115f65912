"""The command line as one meets it first: quick help that says everything, and plain refusals.

Guards against a first page that hides commands, and wrong use that looks like a failure.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

import mod
from longreel import cli
from longreel.errors import UsageError

TIMEOUT_S = 120.0


def run(*arguments: str, width: int = 200) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "COLUMNS": str(width), "TERMINAL_WIDTH": str(width)}
    return subprocess.run(
        [sys.executable, "-m", "longreel.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env=environment,
        check=False,
    )


def page(*words: str) -> str:
    """The help of a command, without a process of its own."""
    width = {"COLUMNS": "200", "TERMINAL_WIDTH": "200"}
    told = CliRunner().invoke(cli.app, [*words, "--help"], env=width)
    assert told.exit_code == 0, told.output
    return told.stdout


def commands(*group: str) -> list[tuple[str, ...]]:
    """Every command as its words; a group's own are in place of the group."""
    listed = page(*group).partition("Commands:")[2]
    found: list[tuple[str, ...]] = []
    for name in re.findall(r"^  ([a-z][a-z-]*) ", listed, re.MULTILINE):
        found += (commands(*group, name) if name in ("jobs", "keys") else None) or [(*group, name)]
    return found


def entries(text: str) -> list[str]:
    """Each option or argument of a help page with all its words, on one line."""
    body = re.split(r"^(?:Arguments|Options):$", text, maxsplit=1, flags=re.MULTILINE)[1]
    found: list[str] = []
    for line in body.splitlines():
        if re.match(r"  \S", line):
            found.append(line.strip())
        elif re.match(r"   +\S", line):
            found[-1] += " " + line.strip()
    return found


@pytest.mark.slow
def test_help_comes_at_once() -> None:
    """Guards against torch or Ray imported to print a page of text."""
    took = []
    for _ in range(3):
        before = time.perf_counter()
        assert run("--help").returncode == 0
        took.append(time.perf_counter() - before)
    assert min(took) < 1.0, took


@pytest.mark.slow
def test_every_command_of_the_first_page_is_there() -> None:
    found = {" ".join(words) for words in commands()}
    assert {"summarize", "submit", "jobs list", "jobs resume", "show", "report", "serve"} <= found


@pytest.mark.slow
def test_every_option_is_explained() -> None:
    """Guards against an option that one must read code to use."""
    for command in commands():
        text = page(*command)
        assert text.strip().splitlines()[2].strip(), command
        found = entries(text)
        assert len(found) >= 2, text
        for entry in found:
            words = re.split(r"\s{2,}", entry, maxsplit=1)
            assert len(words) == 2, f"{command}: {entry!r} has no help"
            assert re.search(r"[A-Za-z]{3,}", re.sub(r"\[.*?\]", "", words[1])), (command, entry)
            if not entry.startswith("--help"):
                assert re.search(r"\[(default: .+|required)\]", entry), (command, entry)


@pytest.mark.slow
def test_submit_takes_what_summarize_takes() -> None:
    """Guards against an option that has another meaning or default on a cluster."""
    here, there = (set(entries(page(command))) for command in ("summarize", "submit"))
    (own,) = here - there
    assert own.startswith("--address")
    assert {entry.split()[0] for entry in there - here} == {
        "--address",
        "--wait",
        "--no-upload",
        "--no-check",
    }


def test_version_is_one_line() -> None:
    printed = run("--version")
    assert printed.returncode == 0
    assert re.fullmatch(r"(longreel )?\d+\.\d+\S*\n", printed.stdout)


def test_an_unknown_command_is_wrong_use() -> None:
    refused = run("sumarize")
    assert refused.returncode == 2
    assert "sumarize" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_character_that_a_terminal_lacks_is_no_failure() -> None:
    """Guards against a finished job that ends in a traceback where nothing is UTF-8."""
    program = """if True:
        import sys
        from rich.console import Console
        from longreel import cli
        def app():
            words = sys.stdin.read()
            with cli._terminal() as terminal:
                Console(file=terminal).print("caf\\u00e9 \\u2026")
            Console().print("caf\\u00e9 \\u2013 " + words)
        cli.app = app
        cli.main()
    """
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=b"caf\xe9",
        capture_output=True,
        timeout=TIMEOUT_S,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        check=False,
    )
    assert done.stdout == b"caf? ? caf?\n", done
    assert done.stderr == b"caf\\xe9 \\u2026\n"
    assert done.returncode == 0


def test_an_error_cannot_move_the_cursor(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards against control sequences in a name that an error names."""

    def failing() -> None:
        raise UsageError("no file: a\x1b]0;title\x07\nlongreel: \u202egnp.mp4")

    monkeypatch.setattr(cli, "app", failing)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    said = "longreel: no file: a\\x1b]0;title\\x07 longreel: \\u202egnp.mp4\n"
    assert capsys.readouterr().err == said


@pytest.mark.slow
@pytest.mark.parametrize("command", ["show", "report"])
@pytest.mark.parametrize("place", ["empty", "missing", "file", "empty of rows"])
def test_nothing_to_look_at_is_one_line(command: str, place: str, tmp_path: Path) -> None:
    """Guards against a traceback, an empty page, or success where no job has written."""
    dest = tmp_path / place
    if place == "file":
        dest.write_text("mine")
    elif place != "missing":
        dest.mkdir()
        if "rows" in place:
            (dest / "videos").mkdir()
            (dest / "segments").mkdir()
    page = tmp_path / "page.html"
    refused = run(command, str(dest), *(["-o", str(page)] if command == "report" else []))
    assert refused.returncode == 2, refused
    assert len(refused.stderr.strip().splitlines()) == 1, refused
    assert str(dest) in refused.stderr
    assert not refused.stdout.strip()
    assert not page.exists()


@pytest.mark.slow
@pytest.mark.parametrize("command", [("serve",), ("summarize", "nothing.mp4", "--output", "rows")])
def test_a_model_larger_than_memory_is_refused_at_once(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    """Guards against hours of reading weights, and a cluster, before anybody says so."""
    model, size = tmp_path / "model", 2**42
    shutil.copytree(Path(*mod.__path__) / "checkpoints" / "longreel-tiny", model)
    tensor = {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}
    header = json.dumps({"weight": tensor}).encode()
    # A hole, which takes no room on the disk.
    with (model / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)
    done = run(*command, "--model", str(model))
    assert done.returncode == 2
    assert done.stdout == ""
    assert re.fullmatch(
        rf"longreel: the weights of the model at '{model}' take 4096\.0 GiB; "
        r"\d+\.\d GiB of memory are free\n",
        done.stderr,
    )
