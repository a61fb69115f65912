"""Uploaded files through the official ``openai`` client, and what of them survives.

Guards against files that a restart loses, or that cannot be had back as they were.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from infra.objectstore import ObjectStore
from serve.routes.app import build
from serve.routes.context import ApiSettings, Context
from tests.serve.memory_sessions import MemorySessions
from tests.serve.served import MODEL, WordAnswers, served

BODY = bytes(range(256)) * 5000


@contextmanager
def service(store: str, **settings: Any) -> Iterator[openai.OpenAI]:
    """A client of a fresh service on ``store``."""
    app = build(Context(MemorySessions(), WordAnswers(), MODEL, store, ApiSettings(**settings)))
    with (
        served(app) as address,
        openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client


@pytest.mark.slow
def test_a_file_survives_a_restart(tmp_path: Path) -> None:
    """Guards files that clients were told are stored."""
    with service(str(tmp_path)) as client:
        made = client.files.create(file=("../a b.mp4", BODY), purpose="vision")
        assert made.id.startswith("file-")
        assert (made.object, made.bytes, made.filename) == ("file", len(BODY), "a b.mp4")
        assert (made.purpose, made.status) == ("vision", "processed")
    with service(str(tmp_path)) as client:
        assert client.files.retrieve(made.id) == made
        assert list(client.files.list()) == [made]
        assert client.files.content(made.id).read() == BODY
        gone = client.files.delete(made.id)
        assert (gone.id, gone.deleted) == (made.id, True)
        assert list(client.files.list()) == []
        for call in (client.files.retrieve, client.files.content, client.files.delete):
            with pytest.raises(openai.NotFoundError) as caught:
                call(made.id)
            assert caught.value.code == "file_not_found"
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_files_are_listed_in_pages(tmp_path: Path) -> None:
    with service(str(tmp_path)) as client:
        assert list(client.files.list()) == []
        made = [
            client.files.create(file=(f"{n}.bin", b"x"), purpose="vision" if n % 2 else "batch")
            for n in range(5)
        ]
        ids = {file.id for file in made}
        listed = [file.id for file in client.files.list(limit=2)]  # follows the pages
        assert len(listed) == 5
        assert set(listed) == ids
        assert [f.id for f in client.files.list(order="asc", limit=2)] == listed[::-1]
        odd = {file.filename for file in client.files.list(purpose="vision")}
        assert odd == {"1.bin", "3.bin"}


def test_large_files_are_refused(tmp_path: Path) -> None:
    """Guards the store and the gateway's memory, also where no length is declared."""
    with service(str(tmp_path), max_upload_bytes=100_000) as client:
        with pytest.raises(openai.APIStatusError) as caught:
            client.files.create(file=("a.mp4", BODY), purpose="vision")
        assert caught.value.status_code == 413
        assert caught.value.code == "media_too_large"

        def endless() -> Iterator[bytes]:
            yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
            for _ in range(1000):
                yield bytes(10_000)

        with httpx.Client() as plain:
            answer = plain.post(
                f"{client.base_url}files",
                content=endless(),
                headers={"Content-Type": "multipart/form-data; boundary=x"},
            )
        assert answer.status_code == 413
        assert list(client.files.list()) == []


@pytest.mark.slow
def test_ids_never_leave_the_folder(tmp_path: Path) -> None:
    """Guards other objects in the store: sessions lie beside the files."""
    (tmp_path / "secret.json").write_text("{}")
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "stray.txt").write_text("no file of ours")
    with service(str(tmp_path)) as client:
        assert list(client.files.list()) == []
        for name in ("..%2Fsecret", "file-..%2F..%2Fsecret", "stray.txt", "file-x"):
            for method in ("GET", "DELETE"):
                url = f"{client.base_url}files/{name}"
                assert httpx.request(method, url).status_code == 404
    assert (tmp_path / "secret.json").exists()


def test_an_upload_that_lacks_its_file_is_said(tmp_path: Path) -> None:
    with service(str(tmp_path)) as client:
        answer = httpx.post(f"{client.base_url}files", data={"purpose": "vision"})
        assert answer.status_code == 422
        assert answer.json()["error"]["param"] == "file"


@pytest.mark.slow
def test_a_page_that_was_uploaded_does_not_run_here(tmp_path: Path) -> None:
    """Guards the console's address against scripts in files that others uploaded."""
    with service(str(tmp_path)) as client:
        made = client.files.create(file=("a.html", b"<script>1</script>"), purpose="vision")
        headers = client.files.content(made.id).response.headers
    assert headers["content-type"] == "application/octet-stream"
    assert headers["content-disposition"] == "attachment"
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.objectstore
def test_files_in_s3(objectstore: ObjectStore, bucket: str) -> None:
    with service(f"s3://{bucket}/state") as client:
        made = client.files.create(file=("a.mp4", BODY), purpose="vision")
        assert [file.id for file in client.files.list()] == [made.id]
        assert client.files.content(made.id).read() == BODY
        client.files.delete(made.id)
        assert list(client.files.list()) == []


def test_a_name_that_is_no_text_harms_no_list(tmp_path: Path) -> None:
    """Guards against one upload that nobody can list, or delete, any more."""
    head = 'Content-Disposition: form-data; name="{}"'
    parts = [head.format("purpose"), "", "vision"]
    named = [head.format("file") + '; filename="a\\ud800.mp4"', "", "x"]
    lines = ["--b", *parts, "--b", *named, "--b--", ""]
    kind = "multipart/form-data; boundary=b; charset=unicode_escape"
    with service(str(tmp_path)) as client:
        body = "\r\n".join(lines).encode()
        url = f"{client.base_url}files"
        made = httpx.post(url, content=body, headers={"content-type": kind})
        assert made.status_code == 200, made.text
        assert [file.id for file in client.files.list()] == [made.json()["id"]]
