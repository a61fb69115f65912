"""One process that runs OpenStack Swift's proxy, account, container and object servers.

``infra.objectstore`` starts it as ``python -m infra.swiftserver``; nothing else should. All
four listen on loopback, each with a one-device ring. What a cluster needs and a test does not
(replication, auditors, memcached, syslog, root) is left out.
"""

from __future__ import annotations

import argparse
import errno
import json
import logging
import os
import shutil
import socket
import sys
import time
import warnings
from pathlib import Path
from typing import IO, Any

BACKENDS = ("account", "container", "object")
DEVICE = "disk"
PARENT_CHECK_S = 1.0

SWIFT_CONF = """
[swift-hash]
swift_hash_path_suffix = longreel
swift_hash_path_prefix = longreel
[storage-policy:0]
name = one
default = yes
"""

# Timeouts are long, because a late container update would otherwise be left to a daemon that
# does not run here, and the object would be missing from its listing for ever.
COMMON = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
swift_dir = {folder}/etc
devices = {folder}/data
recon_cache_path = {folder}/recon
mount_check = false
fallocate_reserve = 0
workers = 0
log_level = INFO
node_timeout = 60
conn_timeout = 10
container_update_timeout = 60
"""

BACKEND = """
[pipeline:main]
pipeline = {name}-server
[app:{name}-server]
use = egg:swift#{name}
node_timeout = 60
conn_timeout = 10
container_update_timeout = 60
"""

PROXY = """
[pipeline:main]
pipeline = catch_errors gatekeeper proxy-logging s3api tempauth bulk copy slo dlo proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
node_timeout = 60
recoverable_node_timeout = 60
conn_timeout = 10
error_suppression_limit = 1000000
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:proxy-logging]
use = egg:swift#proxy_logging
[filter:s3api]
use = egg:swift#s3api
location = {region}
s3_acl = false
[filter:tempauth]
use = egg:swift#tempauth
{users}
[filter:bulk]
use = egg:swift#bulk
[filter:copy]
use = egg:swift#copy
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
"""


#: What Swift hands to the ``xattr`` module: a path, a descriptor or an open file.
File = int | str | IO[bytes]


class MemoryXattr:
    """Extended attributes kept in this process, for file systems without them (such as tmpfs).

    Has the two functions of the ``xattr`` module that Swift's object server calls.
    """

    def __init__(self, first_key: bytes) -> None:
        self._first_key = first_key
        self._of_file: dict[tuple[int, int], dict[bytes, bytes]] = {}

    def setxattr(self, file: File, key: str | bytes, value: bytes) -> None:
        """Set one attribute of a file."""
        key = os.fsencode(key)
        if key == self._first_key:
            # Swift writes this key first: what else is there belongs to a removed file whose
            # inode number came back.
            self._of_file[self._identity(file)] = {}
        self._of_file.setdefault(self._identity(file), {})[key] = value

    def getxattr(self, file: File, key: str | bytes) -> bytes:
        """One attribute of a file.

        Raises:
            OSError: ``ENODATA``: the file has no such attribute.
        """
        try:
            return self._of_file[self._identity(file)][os.fsencode(key)]
        except KeyError:
            raise OSError(errno.ENODATA, os.strerror(errno.ENODATA)) from None

    @staticmethod
    def _identity(file: File) -> tuple[int, int]:
        status = os.stat(file if isinstance(file, int | str) else file.fileno())
        return status.st_dev, status.st_ino


def supports_xattr(folder: Path) -> bool:
    """Whether files in ``folder`` can carry the user attributes that Swift writes."""
    probe = folder / ".xattr-probe"
    probe.touch()
    try:
        os.setxattr(probe, "user.swift.probe", b"x" * 1024)
    except OSError:
        return False
    finally:
        probe.unlink()
    return True


def write_rings(folder: Path, ports: dict[str, int]) -> None:
    """One ring per backend, with the one device at that backend's port."""
    from swift.common.ring import RingBuilder

    for name in BACKENDS:
        builder = RingBuilder(part_power=1, replicas=1, min_part_hours=0)
        address = {"ip": "127.0.0.1", "port": ports[name]}
        replication = {"replication_ip": "127.0.0.1", "replication_port": ports[name]}
        place = {"region": 1, "zone": 1, "weight": 1, "device": DEVICE}
        builder.add_dev({**address, **replication, **place})
        builder.rebalance()
        builder.get_ring().save(str(folder / "etc" / f"{name}.ring.gz"))


def write_configuration(folder: Path, ports: dict[str, int], settings: dict[str, Any]) -> None:
    """``settings``: ``region``, and ``users`` as a list of (account, user, key, groups)."""
    for name in ("etc", f"data/{DEVICE}", "recon"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "etc" / "swift.conf").write_text(SWIFT_CONF)
    users = "\n".join(f"user_{a}_{u} = {key} {groups}" for a, u, key, groups in settings["users"])
    for name, port in ports.items():
        common = COMMON.format(port=port, folder=folder)
        own = (
            PROXY.format(region=settings["region"], users=users)
            if name == "proxy"
            else BACKEND.format(name=name)
        )
        path = folder / "etc" / f"{name}-server.conf"
        path.touch(mode=0o600)
        path.write_text(common + own)


def prepare_swift(folder: Path, memory_xattr: bool) -> None:
    """Points the library at our folder, before any of its servers is loaded."""
    from swift.common import db, utils
    from swift.common.utils import logs
    from swift.obj import diskfile

    connect = db.get_db_connection

    def file_handler(*_: object, **__: object) -> logging.Handler:
        return logging.FileHandler(folder / "swift.log")

    def connect_unflushed(*arguments: object, **options: object) -> Any:
        connection = connect(*arguments, **options)
        connection.execute("PRAGMA synchronous = OFF")
        return connection

    logs.ThreadSafeSysLogHandler = file_handler
    # Nobody needs this data after a power cut, and flushing is most of a small write's time.
    os.fsync = os.fdatasync = lambda fd: None
    db.get_db_connection = connect_unflushed
    if memory_xattr or not supports_xattr(folder / "data"):
        diskfile.xattr = MemoryXattr(diskfile.METADATA_KEY)
    utils.FALLOCATE_RESERVE, utils.FALLOCATE_IS_PERCENT = 0, False


def serve(folder: Path, port: int, settings: dict[str, Any], parent: int) -> None:
    """Runs the servers until killed, or until the process ``parent`` is gone.

    Writes ``{"port": ...}`` to standard output when they answer.

    Raises:
        OSError: the port is taken.
    """
    from swift.common import utils

    utils.monkey_patch()
    import eventlet
    import eventlet.wsgi
    from swift.common import wsgi

    # Swift's dates are those of a machine in UTC.
    os.environ["TZ"] = "UTC+0"
    time.tzset()
    eventlet.hubs.use_hub(wsgi.get_hub())

    listeners = {"proxy": eventlet.listen(("127.0.0.1", port), backlog=512)}
    for name in BACKENDS:
        listeners[name] = eventlet.listen(("127.0.0.1", 0), backlog=512)
    for listener in listeners.values():
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    ports = {name: listener.getsockname()[1] for name, listener in listeners.items()}

    write_configuration(folder, ports, settings)
    write_rings(folder, ports)
    utils.set_swift_dir(str(folder / "etc"))
    from swift.common.storage_policy import reload_storage_policies

    reload_storage_policies()
    prepare_swift(folder, bool(settings.get("memory_xattr")))
    for name in (*BACKENDS, "proxy"):
        path = str(folder / "etc" / f"{name}-server.conf")
        application = wsgi.loadapp(path, global_conf={"log_name": name})
        # Swift's own run_server would replace the event hub that the other servers wait in.
        eventlet.spawn(
            eventlet.wsgi.server,
            listeners[name],
            application,
            log=wsgi.NullLogger(),
            custom_pool=eventlet.GreenPool(1024),
            protocol=wsgi.SwiftHttpProtocol,
            socket_timeout=60,
            # S3 clients look for "ETag", spelt so.
            capitalize_response_headers=False,
            url_length_limit=16384,
        )
    eventlet.sleep(0)
    print(json.dumps({"port": ports["proxy"]}), flush=True)
    # Nobody reads the pipe any more, and a full one would stop us.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    while os.getppid() == parent:
        # The kernel's own way to end with a parent follows the thread that started us instead.
        eventlet.sleep(PARENT_CHECK_S)


def main() -> None:
    """Serve until the parent process has ended."""
    parser = argparse.ArgumentParser(prog="python -m infra.swiftserver", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--temporary", action="store_true", help="remove the folder when left")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    # On standard input, because a command line is readable by everybody on the machine.
    settings = json.loads(sys.stdin.readline())
    serve(arguments.folder, arguments.port, settings, arguments.parent)
    if arguments.temporary:
        shutil.rmtree(arguments.folder, ignore_errors=True)


if __name__ == "__main__":
    main()
