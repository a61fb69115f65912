"""Uploaded files, as OpenAI's API has them."""

# Without postponed annotations, as in ``serve.routes.app``.
import asyncio
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, File, Form, Query, Request, UploadFile
from fastapi.responses import StreamingResponse

from actors.objects import open_object
from serve.decoding.media import MediaError
from serve.routes import docs, filestore
from serve.routes.context import Context

_PART_BYTES = 2**20
_MOST_LISTED = 10_000


def router() -> APIRouter:
    """``/v1/files``."""
    routes = APIRouter(tags=["files"])

    @routes.post(
        "/v1/files",
        summary="Upload a file, to be named in chats",
        responses=docs.FILE,
        openapi_extra=docs.UPLOAD,
    )
    async def upload(
        request: Request,
        file: Annotated[UploadFile, File(description="its bytes")],
        purpose: Annotated[str, Form(max_length=64, description="kept, and of no effect")],
    ) -> dict[str, Any]:
        """Its id stands for it in `video_url` and `file` parts of chats until it is deleted."""
        context: Context = request.app.state.context
        most = context.settings.max_upload_bytes
        if (file.size or 0) > most:
            raise MediaError("media_too_large", f"the file has more than {most} bytes")
        data = await file.read()
        # A name, never a path.
        name = (file.filename or "upload").replace("\\", "/").rpartition("/")[2][:255]
        # A client may choose an encoding in which it is no text.
        name = name.encode(errors="replace").decode()
        saved = await asyncio.to_thread(filestore.save_file, context.store, data, name, purpose)
        return _object(saved)

    @routes.get("/v1/files", summary="Uploaded files, newest first", responses=docs.FILES)
    async def list_files(
        request: Request,
        purpose: Annotated[str | None, Query(description="only of this purpose")] = None,
        limit: Annotated[int, Query(ge=1, le=_MOST_LISTED)] = _MOST_LISTED,
        order: Annotated[Literal["asc", "desc"], Query(description="by time")] = "desc",
        after: Annotated[str | None, Query(description="go on after this id")] = None,
    ) -> dict[str, Any]:
        """In pages: `has_more` says that `after` the page's `last_id` there are more."""
        context: Context = request.app.state.context
        files = await asyncio.to_thread(filestore.stored_files, context.store)
        files = [f for f in files if purpose is None or f.purpose == purpose]
        if order == "desc":
            files.reverse()
        ids = [f.id for f in files]
        if after in ids:
            files = files[ids.index(after) + 1 :]
        page = files[:limit]
        return {
            "object": "list",
            "data": [_object(f) for f in page],
            "first_id": page[0].id if page else None,
            "last_id": page[-1].id if page else None,
            "has_more": len(files) > limit,
        }

    @routes.get("/v1/files/{file}", summary="What is known of a file", responses=docs.FILE)
    async def get_file(request: Request, file: str) -> dict[str, Any]:
        """Its name, size and purpose, as they were uploaded."""
        context: Context = request.app.state.context
        return _object(await asyncio.to_thread(filestore.find_file, context.store, file))

    @routes.get("/v1/files/{file}/content", summary="Its bytes", response_class=StreamingResponse)
    async def content(request: Request, file: str) -> StreamingResponse:
        """As they were uploaded, and always as a download."""
        context: Context = request.app.state.context
        found = await asyncio.to_thread(filestore.find_file, context.store, file)
        # As a download: a file that somebody uploaded must not run as a page of this address.
        headers = {
            "Content-Length": str(found.bytes),
            "Content-Disposition": "attachment",
            "X-Content-Type-Options": "nosniff",
        }
        parts = _parts(filestore.content_uri(context.store, file))
        return StreamingResponse(parts, media_type="application/octet-stream", headers=headers)

    @routes.delete("/v1/files/{file}", summary="Delete a file", responses=docs.FILE_GONE)
    async def delete(request: Request, file: str) -> dict[str, Any]:
        """Chats that read it at present may fail."""
        context: Context = request.app.state.context
        await asyncio.to_thread(filestore.remove_file, context.store, file)
        return {"id": file, "object": "file", "deleted": True}

    return routes


def _object(file: filestore.StoredFile) -> dict[str, Any]:
    shown = {name: value for name, value in asdict(file).items() if name != "owner"}
    return {**shown, "object": "file", "status": "processed"}


def _parts(uri: str) -> Iterator[bytes]:
    with open_object(uri) as reader:
        while part := reader.read(_PART_BYTES):
            yield part
