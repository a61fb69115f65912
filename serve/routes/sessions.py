"""Routes of live sessions: open, watch, ask, listen, close."""

# Without postponed annotations: routes travel to the gateway's process with what their code names,
# and a type that stands in a string is not among it.
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Body, Header, Path, Query, Request, Response
from fastapi.responses import JSONResponse

from serve.calls import Sessions
from serve.decoding.media import kind_of
from serve.keys.serving import check_frames
from serve.live.items import Question, Receipt, SessionError, SessionEvent, SessionView
from serve.routes import docs
from serve.routes.bodies import decode, read_frames
from serve.routes.context import Context
from serve.routes.outcomes import FrameOutcomes
from serve.routes.schemas import (
    Ask,
    Cancelled,
    FramesReply,
    KeptObject,
    OutcomeShown,
    ResponseObject,
    SessionCreate,
    SessionDeleted,
    SessionList,
    SessionObject,
)
from serve.routes.sse import (
    EventStream,
    events_until_closed,
    format_comment,
    format_error,
    format_event,
    session_stream,
)

#: Seconds after which a call that waits looks whether its client is still there.
_LOOK_S = 2.0
_Session = Annotated[str, Path(description="The session's id", examples=["door"])]
_Wanted = Annotated[SessionCreate | None, Body(examples=[docs.WANTED])]
_Seq = Annotated[int | None, Query(ge=1, lt=2**53, description="Of the first frame")]
_TimeS = Annotated[float | None, Query(ge=0, lt=1e9, description="Of the first frame, in seconds")]
_Wait = Annotated[bool, Query(description="Answer when the model has seen the frames")]


def router() -> APIRouter:
    """The routes under ``/v1/sessions``."""
    api = APIRouter(prefix="/v1/sessions", tags=["sessions"], responses=docs.ERRORS)
    api.post("", status_code=201, summary="Open a session")(open_session)
    api.get("", summary="Sessions that are not closed")(list_sessions)
    api.get("/{session}", summary="How a session stands")(get_session)
    api.delete("/{session}", summary="End a session")(close_session)
    api.post("/{session}/frames", summary="Give frames", **docs.FRAMES)(give_frames)
    api.post("/{session}/responses", summary="Ask", **docs.RESPONSES)(ask)
    api.post("/{session}/responses/{response}/cancel", summary="Withdraw a question")(cancel)
    api.post("/{session}/cancel", summary="End what is being said")(cancel_any)
    api.get("/{session}/kept", summary="Which vision tokens of a frame ran")(kept)
    api.get("/{session}/events", summary="Listen to a session", **docs.EVENTS)(listen)
    return api


def _context(request: Request) -> Context:
    return request.app.state.context


async def open_session(request: Request, wanted: _Wanted = None) -> SessionObject:
    """The session lives until it is deleted; frames and questions refer to it by its id."""
    context = _context(request)
    wanted = wanted or SessionCreate.model_validate({})
    view = await context.sessions.open(wanted.options(), wanted.id)
    return SessionObject.of(view, context.model.fps)


async def list_sessions(request: Request) -> SessionList:
    """All of them, in no order that means anything."""
    context = _context(request)
    views = await context.sessions.list()
    return SessionList(data=[SessionObject.of(view, context.model.fps) for view in views])


async def get_session(request: Request, session: _Session) -> SessionObject:
    """Sequence numbers, frames that wait, and the last event's number, for one who comes back."""
    context = _context(request)
    return SessionObject.of(await context.sessions.view(session), context.model.fps)


async def close_session(request: Request, session: _Session) -> SessionDeleted:
    """What waits is forgotten, and its state is deleted."""
    await _context(request).sessions.close(session)
    return SessionDeleted(id=session)


async def give_frames(
    request: Request, session: _Session, seq: _Seq = None, time_s: _TimeS = None, wait: _Wait = True
) -> Response:
    """Frames are durable when this answers: they outlive the loss of any replica.

    The body is a form with ``frames`` (and ``times``, ``seq``), one picture, or one encoded piece
    of video that is sampled at the session's fps. Either all frames get a receipt, or none was
    taken in and the reply is an error. Sent again with the same ``seq``, they are answered as
    before and not applied twice. If the client leaves while it waits, the frames stay.
    """
    context = _context(request)
    # Before the body is read: a session that is not there needs none of it. Whose it is is known
    # here; how it stands would be a call to its replica.
    await context.sessions.owner(session)
    check_frames()
    sent = await read_frames(request, seq, time_s)
    fps = context.model.fps
    if kind_of(sent.media[0]) == "video":
        fps = (await _open_one(context.sessions, session)).options.fps or fps
    frames = await decode(sent, context.model.side, fps, context.settings)
    receipts = await context.sessions.give(session, frames, sent.seq)
    outcomes = await _outcomes(request, session, receipts) if wait else None
    body = FramesReply.of(receipts, outcomes).model_dump(
        mode="json", exclude=None if wait else {"outcomes"}
    )
    return JSONResponse(body, 200 if wait else 202)


async def _open_one(sessions: Sessions, session: str) -> SessionView:
    view = await sessions.view(session)
    if view.state == "closed":
        raise _closed(session)
    return view


async def _outcomes(request: Request, session: str, receipts: list[Receipt]) -> list[OutcomeShown]:
    """Of the frames that were accepted, as the events after them tell."""
    accepted = [receipt.frame for receipt in receipts if receipt.frame is not None]
    if not accepted:
        return []
    told = FrameOutcomes(accepted)
    after = min(receipt.event for receipt in receipts)
    async for event in _events(request, session, after):
        told.take(event)
        if told.complete:
            break
    return told.outcomes


async def _events(request: Request, session: str, after: int) -> AsyncIterator[SessionEvent]:
    """Events for a reply that waits for some of them.

    Raises:
        SessionError: the session was closed, or the client has left.
    """
    sessions = _context(request).sessions
    async for event in events_until_closed(sessions, session, after, _LOOK_S):
        if event is not None and event.type != "session.closed":
            yield event
        elif await request.is_disconnected():
            raise SessionError("client_closed", "the client has left")
    raise _closed(session)


def _closed(session: str) -> SessionError:
    return SessionError("session_closed", f"session {session!r} is closed")


async def ask(request: Request, session: _Session, asked: Ask) -> Response:
    """The question is answered after all frames given before it, even while the model narrates.

    It is durable when ``response.created`` comes. A client that leaves does not withdraw it.
    """
    sessions = _context(request).sessions
    question = Question(asked.input, asked.max_output_tokens)
    (receipt,) = await sessions.give(session, [question], asked.seq)
    if receipt.response is None:
        raise SessionError("invalid_value", f"number {receipt.seq} was given to a frame")
    begun = ResponseObject(
        id=receipt.response,
        session=session,
        seq=receipt.seq,
        status="in_progress",
        repeated=receipt.repeated,
    )
    if asked.stream:
        return EventStream(_answer_stream(sessions, begun, receipt.event))
    async for event in _events(request, session, receipt.event):
        if event.data.get("response") == begun.id and event.type == "response.done":
            return JSONResponse(begun.finished(event.data).model_dump(mode="json"))
    raise _closed(session)


async def _answer_stream(
    sessions: Sessions, begun: ResponseObject, after: int
) -> AsyncIterator[str]:
    yield format_event("response.created", begun.model_dump(mode="json"))
    try:
        async for event in events_until_closed(sessions, begun.session, after):
            if event is None:
                yield format_comment("keep-alive")
            elif event.data.get("response") != begun.id:
                continue
            elif event.type == "response.done":
                done = begun.finished(event.data).model_dump(mode="json")
                yield format_event(event.type, done, event.number)
                return
            elif event.type != "response.created":
                yield format_event(event.type, event.data, event.number)
        raise _closed(begun.session)
    except SessionError as error:
        yield format_error(error)


async def cancel(request: Request, session: _Session, response: str) -> Cancelled:
    """Ends the answer, or withdraws the question before it is answered; frames stay."""
    return await _cancel(request, session, response)


async def cancel_any(request: Request, session: _Session) -> Cancelled:
    """Ends the narration or answer that is being given; frames stay."""
    return await _cancel(request, session, None)


async def _cancel(request: Request, session: str, response: str | None) -> Cancelled:
    ended = await _context(request).sessions.cancel(session, response)
    return Cancelled(session=session, cancelled=ended)


async def kept(
    request: Request,
    session: _Session,
    frame: Annotated[int, Query(ge=0, lt=2**53, description="Its number in the session")],
) -> KeptObject:
    """Of a session that was opened with ``kept``, and of its last frames alone: this is a view, and
    what a lost replica saw is not seen again for it."""
    found = await _context(request).sessions.kept(session, frame)
    return KeptObject(session=session, **asdict(found))


async def listen(
    request: Request,
    session: _Session,
    frames: Annotated[bool, Query(description="Tell every frame that was seen, too")] = False,
    after: Annotated[int, Query(ge=0, description="Number of the last event one has")] = 0,
    last_event_id: Annotated[int | None, Header(ge=0)] = None,
) -> EventStream:
    """Server-sent events, each with its number as ``id``; ends after ``session.closed``.

    ``Last-Event-ID`` (which browsers send when they come back) or ``after`` goes on after that
    event; the header goes before. Events are the same, number for number, after any recovery.
    """
    sessions = _context(request).sessions
    await sessions.view(session)  # here, where a session that is not there can still be a 404
    begin = after if last_event_id is None else last_event_id
    return EventStream(session_stream(sessions, session, begin, frames))
