"""Which tests go together to one of several workers: a file's, and all that start clusters."""

from __future__ import annotations

from pathlib import Path

from xdist.scheduler import LoadScopeScheduling


class FilesAndClusters(LoadScopeScheduling):
    """A file stays whole, and clusters follow each other on one worker.

    Groups that tests are marked with come to nothing with pytest 9.2 and pytest-xdist 3.8, which
    writes them into names that pytest makes anew.
    """

    def _split_scope(self, nodeid: str) -> str:
        return scope(nodeid, self.config.rootpath)


def scope(nodeid: str, root: Path) -> str:
    """What a test is not parted from, where ``root`` holds its file."""
    path = nodeid.partition("::")[0]
    return "clusters" if "pytest.mark.ray" in (root / path).read_text() else path
