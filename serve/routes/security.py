"""How the API's page says that keys are needed."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from serve.routes import docs
from serve.routes.guard import is_open

_SCHEME = "key"


def describe_keys(app: FastAPI, needed: bool, metrics: bool) -> None:
    """Add the bearer scheme to the schema of ``app``, and what refusing a key looks like.

    Args:
        needed: else a key may be sent and makes no difference.
        metrics: ``/metrics`` needs none.
    """
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        schema = plain()
        parts = schema.setdefault("components", {})
        parts.setdefault("securitySchemes", {})[_SCHEME] = {
            "type": "http",
            "scheme": "bearer",
            "description": "A key that `longreel keys create` made.",
        }
        for path, operations in schema["paths"].items():
            if is_open(path, metrics):
                continue
            for operation in operations.values():
                operation["security"] = [{_SCHEME: []}] if needed else [{}, {_SCHEME: []}]
                for status, reply in docs.KEY_ERRORS.items():
                    operation["responses"].setdefault(str(status), reply)
        return schema

    app.openapi = openapi
