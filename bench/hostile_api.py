"""The HTTP API fuzzed by its own description: what fits it, and what does not."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from hypothesis.strategies import sampled_from
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.generation import GenerationMode

from infra.hostile.mutations import mutated
from infra.hostile.seeds import seeds

_CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
#: Streams that end with their session alone.
_ENDLESS = ("/v1/sessions/{session}/events",)


@dataclass
class Fuzzed:
    """What was asked, and what was wrong with the answers.

    Attributes:
        failures: by operation and kind, the first of each.
    """

    calls: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)

    def shown(self) -> dict[str, Any]:
        """As the bench prints it."""
        return {
            "calls": self.calls,
            "statuses": {str(k): v for k, v in sorted(self.statuses.items())},
            "failures": self.failures,
        }


def fuzz(schema: Any, examples: int, known: dict[str, str]) -> Fuzzed:
    """Calls every operation of an API; the same calls each time.

    Args:
        schema: of schemathesis, which knows how to reach the API.
        examples: of each operation, that fit its description, and as many that do not.
        known: values of path parameters that exist; every second call has them, if it deletes
            nothing.
    """
    _register_media()
    found = Fuzzed()
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.path in _ENDLESS:
            continue
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            _fuzz_one(operation, mode, examples, known, found)
    return found


@cache
def _register_media() -> None:
    """Bodies that are pictures or videos, whole or damaged."""
    healthy = seeds()
    files = [*healthy.values(), *(file.data for file in mutated(healthy, 50))]
    for kind in ("image/jpeg", "image/png", "image/webp", "video/mp4", "video/webm"):
        schemathesis.openapi.media_type(kind, sampled_from(files))


def _fuzz_one(
    operation: Any, mode: GenerationMode, examples: int, known: dict[str, str], found: Fuzzed
) -> None:
    turn = 0

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(mode))
    def call(case: Any) -> None:
        nonlocal turn
        turn += 1
        for name, value in known.items():
            if case.method == "DELETE" and case.path_parameters.get(name) == value:
                case.path_parameters[name] = "gone"
            if turn % 2 and case.method != "DELETE" and name in (case.path_parameters or {}):
                case.path_parameters[name] = value
        found.calls += 1
        response = case.call()
        found.statuses[response.status_code] += 1
        try:
            case.validate_response(response, checks=_CHECKS)
        except FailureGroup as group:
            for failure in group.exceptions:
                _note(case, failure, found)
        except Failure as failure:
            _note(case, failure, found)

    with suppress(Unsatisfiable):  # where nothing can be wrong with a request
        call()


def _note(case: Any, failure: Any, found: Fuzzed) -> None:
    where = f"{case.method} {case.operation.path}: {type(failure).__name__}"
    told = f"{failure} with {case.as_curl_command()}"
    found.failures.setdefault(where, told[:2000])
