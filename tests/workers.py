"""Which tests go together to one of several workers: a file's, and all of two kinds of file."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

#: Of files marked like this, one worker has all, from the beginning. Two clusters at a time are too
#: much for two cores; what waits leaves them to the others.
_KINDS = ("ray", "waits")


class FilesAndKinds(LoadScopeScheduling):
    """A file stays whole, and files of a kind follow each other on one worker, before others.

    Groups that tests are marked with come to nothing with pytest 9.2 and pytest-xdist 3.8, which
    writes them into names that pytest makes anew.
    """

    def _split_scope(self, nodeid: str) -> str:
        return scope(nodeid, self.config.rootpath)

    def _assign_work_unit(self, node: WorkerController) -> None:
        for kind in _KINDS:
            if kind in self.workqueue:
                self.workqueue.move_to_end(kind, last=False)
                break
        super()._assign_work_unit(node)


def scope(nodeid: str, root: Path) -> str:
    """What a test is not parted from, where ``root`` holds its file."""
    return _of_file(root, nodeid.partition("::")[0])


@cache
def _of_file(root: Path, path: str) -> str:
    text = (root / path).read_text()
    return next((kind for kind in _KINDS if f"pytest.mark.{kind}" in text), path)
