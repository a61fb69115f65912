"""The HTTP gateway: health, models, chat about text; it ends client connections on the CPU."""

# Without postponed annotations: routes travel to the gateway's process with what their code names,
# and a type that stands in a string is not among it.
from typing import Any

from fastapi import FastAPI, HTTPException
from ray import serve
from ray.serve.handle import DeploymentHandle

from longreel import __version__
from serve.chat import ChatRequest, completion

api = FastAPI(title="Longreel", version=__version__)


@serve.ingress(api)
class Gateway:
    """Routes of the service; the model is reached through ``replica``."""

    def __init__(self, replica: DeploymentHandle) -> None:
        self._replica = replica

    @api.get("/healthz", summary="The gateway is alive")
    async def healthz(self) -> dict[str, str]:
        return {"status": "ok"}

    @api.get("/readyz", summary="A replica answers")
    async def readyz(self) -> dict[str, str]:
        await self._replica.describe.remote()
        return {"status": "ok"}

    @api.get("/v1/models", summary="The model that this service holds")
    async def models(self) -> dict[str, Any]:
        checkpoint, keep_ratio = await self._replica.describe.remote()
        model = {
            "id": checkpoint.name,
            "object": "model",
            "owned_by": "longreel",
            "revision": checkpoint.revision,
            "fps": checkpoint.fps,
            "keep_ratio": keep_ratio,
        }
        return {"object": "list", "data": [model]}

    @api.post("/v1/chat/completions", summary="An answer to text, as OpenAI's API has it")
    async def chat(self, asked: ChatRequest) -> dict[str, Any]:
        checkpoint, _ = await self._replica.describe.remote()
        if asked.model != checkpoint.name:
            raise HTTPException(404, f"there is no model {asked.model!r}, but {checkpoint.name!r}")
        answered = await self._replica.chat.remote(asked.system, asked.text, asked.most_tokens)
        return completion(checkpoint.name, answered)


GatewayDeployment = serve.deployment(name="gateway", ray_actor_options={"num_cpus": 0})(Gateway)
