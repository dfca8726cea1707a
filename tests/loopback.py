"""A web server on the loopback whose faults are chosen, and that counts what it sends."""

import re
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Server:
    """Files by path, and what is wrong with the server."""

    files: dict[str, bytes] = field(default_factory=dict)
    port: int = 0
    break_offs: list[int] = field(default_factory=list)
    """Bytes after which each of the next answers breaks off."""
    resets: bool = False
    """A break-off is a reset of the connection, not a silent end."""
    knows_ranges: bool = True
    refusals: list[int] = field(default_factory=list)
    """Statuses of the next answers."""
    headers: dict[str, str] = field(default_factory=dict)
    tells_length: bool = True
    tells_total: bool = True
    """Whether a part of a file comes with the size of the whole."""
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    """Path and Range of every request."""
    sent: int = 0
    """Bytes of files sent in all."""

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.port}/{name}"


@contextmanager
def serving() -> Iterator[Server]:
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            _answer(self, server)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        server.port = http.server_address[1]
        thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        http.shutdown()
        thread.join()


def _answer(request: BaseHTTPRequestHandler, server: Server) -> None:
    wanted = request.headers.get("Range")
    server.asked.append((request.path, wanted))
    body = server.files.get(request.path.partition("?")[0].lstrip("/"))
    status = server.refusals.pop(0) if server.refusals else 200 if body is not None else 404
    if status != 200 or body is None:
        request.send_response(status)
        request.send_header("Content-Length", "0")
        request.end_headers()
        return
    start, total = 0, len(body)
    stale = request.headers.get("If-Range") not in (None, server.headers.get("ETag"))
    if wanted and server.knows_ranges and not stale:
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
        status = 206 if start < total else 416
    request.send_response(status)
    for name, value in server.headers.items():
        request.send_header(name, value)
    if status == 416:
        request.send_header("Content-Range", f"bytes */{total}")
        request.send_header("Content-Length", "0")
        request.end_headers()
        return
    if status == 206:
        request.send_header(
            "Content-Range", f"bytes {start}-{total - 1}/{total if server.tells_total else '*'}"
        )
    if server.tells_length:
        request.send_header("Content-Length", str(total - start))
    else:
        request.send_header("Connection", "close")
    request.end_headers()
    rest = body[start:]
    cut = server.break_offs.pop(0) if server.break_offs else len(rest)
    request.wfile.write(rest[:cut])
    request.wfile.flush()
    server.sent += len(rest[:cut])
    if cut < len(rest) or not server.tells_length:
        if server.resets:
            linger = struct.pack("ii", 1, 0)
            request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        request.close_connection = True
