"""The model that the service holds, as OpenAI's API lists models."""

# Without postponed annotations, as in ``serve.routes.app``.
from typing import Any

from fastapi import APIRouter, Request

from serve.live.items import SessionError
from serve.routes import docs
from serve.routes.context import Context, ModelInfo


def router() -> APIRouter:
    """``/v1/models``."""
    routes = APIRouter(tags=["models"])

    @routes.get("/v1/models", summary="The model that this service holds", responses=docs.MODELS)
    async def list_models(request: Request) -> dict[str, Any]:
        """A list of one, with what decides its words: revision, keep ratio, router, bits."""
        context: Context = request.app.state.context
        return {"object": "list", "data": [_object(context.model)]}

    # A path, since names may have slashes.
    @routes.get("/v1/models/{model:path}", summary="One model", responses=docs.MODEL)
    async def get_model(request: Request, model: str) -> dict[str, Any]:
        """The model, if it is that which the service holds."""
        context: Context = request.app.state.context
        require_model(context, model)
        return _object(context.model)

    return routes


def require_model(context: Context, model: str) -> None:
    """Raises ``SessionError`` with ``model_not_found`` unless the service holds ``model``."""
    held = context.model.name
    if model != held:
        raise SessionError("model_not_found", f"there is no model {model!r}, but {held!r}")


def _object(model: ModelInfo) -> dict[str, Any]:
    return {
        "id": model.name,
        "object": "model",
        "created": 0,  # nobody knows; clients expect a number
        "owned_by": "longreel",
        "revision": model.revision,
        "fps": model.fps,
        "keep_ratio": model.keep_ratio,
        "router": model.router,
        "quantize": model.quantize,
    }
