"""The files that hold a checkpoint's weights: whether they are whole, and what memory they need.

Light enough for a command line to import.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from longreel.errors import UsageError
from mod.quantized import KINDS, is_quantized

#: Weights of routers that were trained for an open model, beside its own.
ROUTERS = "routers.safetensors"
#: Largest file of weights that is written: S3 takes no more than 5 GiB at once.
SHARD_SIZE = "5GB"
_WHOLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
#: Bytes of an element by safetensors' names of types; others count as 4.
_WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I8": 1, "U8": 1, "F8_E4M3": 1, "F8_E5M2": 1}
#: The limits of a container (``docker run --memory``) on Linux with cgroup version 2.
_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")
#: Of the memory that is free, what weights may take: caches and activations need the rest.
_SHARE = 0.9


def weight_files(folder: Path) -> list[Path]:
    """The files that transformers reads weights from, and those of routers beside them.

    Raises:
        ValueError: there are none, or a shard that the index names is not there.
    """
    routers = [folder / ROUTERS] if (folder / ROUTERS).is_file() else []
    if (folder / _WHOLE).is_file():
        return [folder / _WHOLE, *routers]
    if not (folder / _INDEX).is_file():
        raise ValueError(f"it has no weights: neither {_WHOLE} nor {_INDEX}")
    try:
        names = sorted(set(json.loads((folder / _INDEX).read_text())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{_INDEX} is no index of shards") from None
    for name in names:
        if not (folder / name).is_file():
            raise ValueError(f"{name} is missing, which {_INDEX} names")
    return [*(folder / name for name in names), *routers]


def weight_bytes(folder: Path, width: int | None = None, quantize: str | None = None) -> int:
    """Bytes of all weights of a checkpoint, from the headers of its files alone.

    Args:
        width: bytes of an element as it is loaded; None counts those of the files.
        quantize: what the decoder's linear maps are turned into, if anything.

    Raises:
        ValueError: a file is missing, is no safetensors, or is shorter than its header says.
    """
    total = 0
    for file in weight_files(folder):
        with file.open("rb") as source:
            size = int.from_bytes(source.read(8), "little")
            end = 8 + size
            try:
                header = json.loads(source.read(size)) if end <= file.stat().st_size else None
            except ValueError:
                header = None
        if not isinstance(header, dict):
            raise ValueError(f"{file.name} is no safetensors file, or is cut off")
        for name, tensor in header.items():
            if name == "__metadata__":
                continue
            first, last = tensor["data_offsets"]
            if end + last > file.stat().st_size:
                raise ValueError(f"{file.name} is cut off: it ends amid {name!r}")
            element = _WIDTHS.get(tensor["dtype"], 4)
            count = (last - first) // element
            if quantize and is_quantized(name, tensor["shape"]):
                total += int(count * KINDS[quantize])
            else:
                total += count * (width or element)
    return total


def loaded_bytes(folder: Path, quantize: str | None = None, *, on_gpu: bool) -> int:
    """Bytes that weights take once loaded: on a CPU in single precision."""
    return weight_bytes(folder, None if on_gpu else 4, quantize)


class TooLargeError(UsageError):
    """Weights that memory cannot hold."""


def refuse_larger_than(
    free: int | None,
    folder: Path,
    quantize: str | None = None,
    *,
    on_gpu: bool = False,
    where: str = "memory",
) -> None:
    """Refuse weights that memory cannot hold, before any is read.

    Args:
        free: bytes; None where nobody knows.
        quantize, on_gpu: as for ``loaded_bytes``.
        where: what is free, in words.

    Raises:
        TooLargeError: says what is needed and what is free.
    """
    needed = loaded_bytes(folder, quantize, on_gpu=on_gpu)
    if free is not None and needed > _SHARE * free:
        raise TooLargeError(
            f"the weights of the model at {str(folder)!r} take {needed / 2**30:.1f} GiB; "
            f"{free / 2**30:.1f} GiB of {where} are free"
        )


def available_bytes(cgroup: Path = _CGROUP, meminfo: Path = _MEMINFO) -> int | None:
    """Memory that can be had without swapping, where the system says; a container's has a limit.

    Args:
        cgroup: folder with the limit, if any, and what of it is used.
        meminfo: file with the memory of the whole machine.
    """
    known = [free for free in (_machine_free(meminfo), _container_free(cgroup)) if free is not None]
    return min(known, default=None)


def _machine_free(meminfo: Path) -> int | None:
    for line in meminfo.read_text().splitlines() if meminfo.is_file() else ():
        if line.startswith("MemAvailable:"):
            return 1024 * int(line.split()[1])
    return None


def _container_free(cgroup: Path) -> int | None:
    with suppress(OSError, ValueError, KeyError):  # there is no limit, or it says "max"
        limit, used = (
            int((cgroup / name).read_text()) for name in ("memory.max", "memory.current")
        )
        told = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        # Files that were read and may be forgotten count as used.
        return max(0, limit - used + int(told["inactive_file"]))
    return None
