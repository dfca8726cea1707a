"""Servers on the loopback: one of ours that can misbehave, nginx, and a local S3."""

import asyncio
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from aiohttp import web


class FileServer:
    """Serves the files of a folder over HTTP, with faults on request."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.breaks = 0
        """Answers that still break off half-way: every other one, until so many have."""
        self.refuses_tars = False
        """Whether every request for a tar is refused (503)."""
        self.spoils: Callable[[bytes], bytes] | None = None
        """What becomes of the body of every third answer for a tar or its offsets."""
        self.ignores_ranges = False
        """Whether a whole file is sent whatever part was asked for."""
        self.requests: list[str] = []
        """Paths asked for."""
        self.port = free_port()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._ready.wait()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        runner = web.AppRunner(app)
        self._loop.run_until_complete(runner.setup())
        self._loop.run_until_complete(web.TCPSite(runner, "127.0.0.1", self.port).start())
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = self.folder / request.match_info["path"]
        self.requests.append(path.name)
        if not path.is_file():
            return web.Response(status=404)
        if self.refuses_tars and path.suffix == ".tar":
            return web.Response(status=503)
        data, asked = path.read_bytes(), request.http_range
        start, end = asked.start or 0, asked.stop or len(data)
        partial = request.headers.get("Range") is not None and not self.ignores_ranges
        body = data[start:end] if partial else data
        if self.spoils and path.suffix in (".tar", ".idx") and len(self.requests) % 3 == 0:
            body = self.spoils(body)
        if self.breaks and path.suffix == ".tar" and len(self.requests) % 2:
            self.breaks -= 1
            answer = web.StreamResponse(status=206 if partial else 200)
            answer.content_length = len(body)
            await answer.prepare(request)
            await answer.write(body[: len(body) // 2])
            assert request.transport is not None
            request.transport.abort()
            return answer
        return web.Response(body=body, status=206 if partial else 200)


@contextmanager
def nginx(folder: Path, work: Path) -> Iterator[str]:
    """Debian's nginx serving a folder; gives its address."""
    port, work = free_port(), work / "nginx"
    work.mkdir()
    (work / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {work}/pid; error_log {work}/error.log;\n"
        f"user root; events {{}}\n"
        f"http {{ access_log off; client_body_temp_path {work}; proxy_temp_path {work};\n"
        f"  fastcgi_temp_path {work}; uwsgi_temp_path {work}; scgi_temp_path {work};\n"
        f"  server {{ listen 127.0.0.1:{port}; root {folder}; }} }}\n"
    )
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    assert program is not None
    server = subprocess.Popen([program, "-p", str(work), "-c", str(work / "nginx.conf")])
    try:
        wait_for(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


def wait_for(port: int) -> None:
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens on port {port}")
