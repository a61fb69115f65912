"""Memory of freed pictures and indexes goes back to the system."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

#: A large block comes and goes; then large ones lie below small ones that stay. Prints, in MiB, by
#: how much the process is larger once all large ones are freed.
_SCRIPT = """
import ctypes, re, sys
from pathlib import Path
from actors.heap import give_back_holes, give_back_large_blocks

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]

def filled(size):
    block = libc.malloc(size)
    ctypes.memset(block, 1, size)
    return block

def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024

if sys.argv[1] == "told":
    give_back_large_blocks()
libc.free(filled(26 << 20))
before = resident()
for large in [(filled(8 << 20), filled(64 << 10))[0] for _ in range(5)]:
    libc.free(large)
if sys.argv[1] == "told at the end":
    give_back_holes()
print(resident() - before)
"""


def _left_mib(told: str) -> int:
    command = [sys.executable, "-c", _SCRIPT, told]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this C library decides by itself")
def test_freed_large_blocks_leave_the_process() -> None:
    """Guards against decoders that grow with a video's index, by holes in their heap."""
    assert _left_mib("told") < 8
    assert _left_mib("told at the end") < 8
    assert _left_mib("not told") >= 32, "it makes no difference here: is it still needed?"
