"""An S3-compatible object store on this machine: OpenStack Swift with its S3 API, for tests.

``python -m infra.objectstore`` runs one in the foreground and prints what to export to use it.
No root, no memcached and no syslog are needed; it is not for data that must survive.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
REGION = "us-east-1"


class ObjectStoreError(RuntimeError):
    """The store did not start; the message holds the end of its output."""


class ObjectStore:
    """One running store. ``start`` and ``stop`` by hand, or a ``with`` block.

    ``port`` 0 takes a free one. Without ``folder`` the data lies in a temporary folder that
    ``stop`` removes; logs lie in the folder. The server ends by itself about a second after this
    process has gone, however it went. The second user (``guest_access_key``) has valid
    credentials and no rights, for tests of what is denied.
    """

    region = REGION
    #: Tests set it to go without the file system's extended attributes, wherever they run.
    memory_xattr = False

    def __init__(self, port: int = 0, folder: Path | None = None) -> None:
        self.endpoint_url = ""
        self.access_key = "test:tester"
        self.secret_key = secrets.token_hex(16)
        self.guest_access_key = "test:guest"
        self.guest_secret_key = secrets.token_hex(16)
        self._port = port
        self._folder = folder
        self._temporary: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> ObjectStore:
        """Returns once the store answers.

        Raises:
            ObjectStoreError: it ended or said nothing in ``START_TIMEOUT_S``.
        """
        if self._process is not None:
            return self
        folder = self._folder
        if folder is None:
            folder = self._temporary = Path(tempfile.mkdtemp(prefix="longreel-objectstore-"))
        folder = folder.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self.endpoint_url = f"http://127.0.0.1:{self._launch(folder)}"
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Ends the server and removes a temporary folder; harmless when nothing runs."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()
        temporary, self._temporary = self._temporary, None
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        self.endpoint_url = ""

    def environment(self) -> dict[str, str]:
        """The variables that make boto3 and this project use the store."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
        }

    def __enter__(self) -> ObjectStore:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _launch(self, folder: Path) -> int:
        """Starts the server process; its port."""
        command = [sys.executable, "-m", "infra.swiftserver", "--folder", str(folder)]
        command += ["--port", str(self._port), "--parent", str(os.getpid())]
        command += ["--temporary"] if self._temporary is not None else []
        # The checkout may not be the working folder, nor on the path of a child.
        root = str(Path(__file__).resolve().parent.parent)
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        output = folder / "server.log"
        with output.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "PYTHONPATH": path},
                # Its own group: Ctrl-C in a terminal is for us, and we then stop it in order.
                start_new_session=True,
            )
        settings = {
            "region": self.region,
            "memory_xattr": self.memory_xattr,
            "users": [
                (*self.access_key.split(":"), self.secret_key, ".admin"),
                (*self.guest_access_key.split(":"), self.guest_secret_key, ""),
            ],
        }
        try:
            return _exchange(self._process, settings)
        except (OSError, ValueError) as error:
            said = output.read_text(errors="replace").strip().splitlines()[-3:]
            raise ObjectStoreError(f"Swift did not start: {' | '.join(said) or error}") from None


def _exchange(process: subprocess.Popen[bytes], settings: dict[str, Any]) -> int:
    """Hands the settings to a new server and waits for its port."""
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin as pipe:
        pipe.write(json.dumps(settings).encode() + b"\n")
    ready, _, _ = select.select([process.stdout], [], [], START_TIMEOUT_S)
    if not ready:
        raise ValueError(f"no answer in {START_TIMEOUT_S:.0f} s")
    return int(json.loads(process.stdout.readline())["port"])


def main() -> int:
    """Runs a store until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(
        prog="python -m infra.objectstore",
        description="Run an S3-compatible object store (OpenStack Swift) on this machine.",
    )
    parser.add_argument("--port", type=int, default=8075, help="0 takes a free one")
    parser.add_argument("--folder", type=Path, help="keep the data here, not in a temporary folder")
    arguments = parser.parse_args()
    # Both signals end the wait below in an exception, so that the store is stopped on the way. A
    # shell's background job is started with SIGINT ignored, and would stay so.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        with ObjectStore(arguments.port, arguments.folder) as store:
            for name, value in store.environment().items():
                print(f"export {name}={shlex.quote(value)}")
            print("# ready; Ctrl-C stops it", flush=True)
            while store._process is not None and store._process.poll() is None:
                time.sleep(0.5)
            print("the store ended by itself; see server.log in its folder", file=sys.stderr)
            return 1
    except KeyboardInterrupt:
        return 0
    except ObjectStoreError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
