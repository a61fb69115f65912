"""What assembling says and writes, and what it leaves of what was there.

Guards against work that is lost at its end, or that overwrites what was there.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from longreel.cli import main
from longreel.errors import LongreelError, UsageError
from mod.assemble import Assembly, assemble
from mod.checkpoint import find_checkpoint
from mod.modeling import VideoLLMMoD
from tests.mod.assembly import loaded, without


def test_the_description_says_what_was_made(assembly: Assembly) -> None:
    lines = assemble(assembly)
    model = loaded(assembly)
    said = "\n".join(lines)
    n_weights = sum(parameter.numel() for parameter in model.parameters())
    for words in (
        "llama, 4 layers of width 32, 403 tokens known, 3 of them new",
        "10 tokens (class token and 3x3 patches) and a word, 2 frames a second",
        "router bounded, 2 of 10 tokens kept in layers 1, 3",
        f"{n_weights:,} in float32",
    ):
        assert words in said
    dense = 7200 * 11 * 4 * 2 * 2 * 8 * 4
    mod = dense - 7200 * 8 * 2 * 2 * 2 * 8 * 4
    assert f"{dense / 2**20:.1f} MiB an hour of video dense, {mod / 2**20:.1f} MiB" in said
    lines = assemble(replace(assembly, router="none", force=True))
    assert "MoD:      none, every token runs in every layer" in lines


def test_what_is_there_is_replaced_only_by_force_and_only_if_a_checkpoint(
    assembly: Assembly, parts: Path
) -> None:
    """Guards against a lost folder: another's files, a part, or an old model and no new one."""
    output = assembly.output
    output.mkdir()
    assemble(assembly)
    first = find_checkpoint(str(output)).revision
    with pytest.raises(UsageError, match="is not empty; --force replaces it"):
        assemble(replace(assembly, keep_ratio=0.5))
    with pytest.raises(UsageError, match="lacks"):
        assemble(
            replace(
                assembly,
                lm=without(output.parent / "x", parts / "llama", "model.norm.weight"),
                force=True,
            )
        )
    assert find_checkpoint(str(output)).revision == first
    (output / "stale").touch()
    assemble(replace(assembly, keep_ratio=0.5, force=True))
    assert loaded(assembly).config.keep_ratio == 0.5
    assert not (output / "stale").exists()
    assert sorted(path.name for path in output.parent.iterdir()) == ["made", "x"]

    files = output.parent / "files"
    files.mkdir()
    (files / "letter").touch()
    with pytest.raises(UsageError, match="is no checkpoint"):
        assemble(replace(assembly, output=files, force=True))
    with pytest.raises(UsageError, match="is a file"):
        assemble(replace(assembly, output=files / "letter", force=True))
    with pytest.raises(UsageError, match="would replace"):
        assemble(replace(assembly, output=parts / "llama", force=True))


def test_an_output_that_cannot_be_written_is_an_error_of_its_own(
    assembly: Assembly, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(VideoLLMMoD, "save_pretrained", full)
    with pytest.raises(LongreelError, match=r"cannot write .*No space left") as refused:
        assemble(assembly)
    assert not isinstance(refused.value, UsageError)
    assert list(assembly.output.parent.iterdir()) == []


@pytest.mark.slow
def test_the_command_prints_what_it_made_and_exits_2_on_wrong_use(
    assembly: Assembly,
    parts: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = ["--vision", parts / "siglip", "--lm", parts / "llama", "-o", assembly.output]
    command = ["longreel", "assemble", *map(str, given)]
    more = ["--lora", str(parts / "lora"), "--mod-layers", "all-deep", "--keep-ratios", "0.4,0.1"]
    made = subprocess.run(
        [sys.executable, "-m", "longreel.cli", *command[1:], *more],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    assert made.stderr == ""
    assert "4, 1 of 10 tokens kept in layers 2, 3" in made.stdout
    assert made.stdout.splitlines()[-1] == f"wrote {assembly.output}"
    config = loaded(assembly).config
    assert (config.mod_layers, config.keep_ratios) == ([2, 3], [0.4, 0.1])

    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as exited:
        main()
    assert exited.value.code == 2
    printed = capsys.readouterr()
    assert len(printed.err.strip().splitlines()) == 1
    assert printed.out == ""
