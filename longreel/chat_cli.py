"""``longreel chat``: questions about one video, to a running service."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from longreel.errors import INTERRUPTED, LongreelError, UsageError
from longreel.options import ApiKey, Server, require_unicode
from longreel.stopping import stopped_as_by_ctrl_c
from longreel.typed import typed_line

if TYPE_CHECKING:
    from longreel.client import Client

#: Where the client puts the video; the question is beside it.
_PLACE = re.compile(r"^messages\.\d+\.content\.0(?=: )")


def chat(
    video: Annotated[
        str,
        typer.Argument(
            metavar="VIDEO",
            help="File (video or picture), https:// or s3:// URL that the service can reach, or "
            "id of an uploaded file.",
            show_default=False,
        ),
    ],
    question: Annotated[
        str | None,
        typer.Argument(
            metavar="QUESTION",
            help="What to ask.",
            show_default="typed one by one in a terminal, else read from standard input",
        ),
    ] = None,
    instructions: Annotated[
        str | None,
        typer.Option(help="Said to the model before the video.", show_default="the model's own"),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(help="Bound on an answer, in tokens.", show_default="the service's own"),
    ] = None,
    server: Server = None,
    api_key: ApiKey = None,
) -> None:
    """Ask a running service about a video; its answer is printed as it comes.

    A file is uploaded, and deleted again at the end. In a terminal, further questions can refer to
    what was said; an empty line ends.
    """
    from longreel.client import Client
    from longreel.readable import prose

    def waiting(failure: LongreelError, seconds: float) -> None:
        # What passes at once is nobody's concern.
        if seconds > 1.0:
            typer.echo(f"longreel: {prose(failure)}; trying again in {seconds:.0f} s", err=True)

    require_unicode(**{"QUESTION": question, "--instructions": instructions})
    try:
        with stopped_as_by_ctrl_c(), Client(server, api_key, on_retry=waiting) as client:
            _chat(client, video, question, instructions, max_tokens)
    except KeyboardInterrupt:
        typer.echo("\nlongreel: interrupted", err=True)
        raise typer.Exit(INTERRUPTED) from None


def _chat(
    client: Client,
    video: str,
    question: str | None,
    instructions: str | None,
    max_tokens: int | None,
) -> None:
    from longreel.client.errors import APIError
    from longreel.client.media import remote_part
    from longreel.readable import visible_lines

    questions = _questions(question)
    history: list[tuple[str, str]] = []
    with ExitStack() as lent:
        shown = video
        if remote_part(video) is None:
            if not os.path.isfile(video):
                raise UsageError(f"no file, URL or id of a file: {video!r}")
            shown = lent.enter_context(client.uploaded(video))
        try:
            for asked in questions:
                answer = ""
                for words in client.chat_stream(
                    shown,
                    asked,
                    instructions=instructions,
                    max_tokens=max_tokens,
                    history=history,
                ):
                    answer += words
                    typer.echo(visible_lines(words), nl=False)
                    sys.stdout.flush()
                typer.echo()
                history.append((asked, answer))
        except APIError as failure:
            # The service knows the video by its place in the request, the user by its name.
            named = _PLACE.sub(lambda _: video, failure.message)
            raise APIError(failure.status, failure.code, named) from None


def _questions(question: str | None) -> Iterator[str]:
    """The question given, or all that are typed, or standard input as one."""
    if question is None and not sys.stdin.isatty():
        question = sys.stdin.read().strip()
        if not question:
            raise UsageError("no question: neither as an argument nor on standard input")
    return _typed() if question is None else iter([question])


def _typed() -> Iterator[str]:
    while True:
        try:
            line = typed_line("? ").strip()
        except EOFError:
            typer.echo()
            return
        if not line:
            return
        yield line
