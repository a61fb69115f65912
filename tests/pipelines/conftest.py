"""The videos and the one undisturbed job that several modules of this folder look at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.pipelines.job_runs import OPTIONS, Run, Sources, longreel, make_sources


@dataclass(frozen=True)
class Job:
    """A job that ran to its end, nobody disturbing it."""

    sources: Sources
    dest: Path
    run: Run


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return make_sources(tmp_path_factory.mktemp("main_job") / "in put")


@pytest.fixture(scope="session")
def job(sources: Sources, tmp_path_factory: pytest.TempPathFactory) -> Job:
    dest = tmp_path_factory.mktemp("main_job_rows") / "rows"
    run = longreel("summarize", *sources.arguments, "-o", str(dest), *OPTIONS)
    return Job(sources, dest, run)
