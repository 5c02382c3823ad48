"""Who looks at the monitor: pages, without a browser or in one, and a scraper.

    python -m procs.bench.lookers PORT COUNT            WebSockets that take every snapshot and draw none
    python -m procs.bench.lookers PORT COUNT CHROMIUM   tabs of this browser, headless; the one in front draws

Says `{"looking": COUNT}` once each WebSocket has its first snapshot, or the browser has opened its tabs; at a line, or
the end, of standard input what came meanwhile: `{"snapshots": ..., "bytes": ..., "scrapes": ...}`, the first two of
WebSockets alone. Runs when a core is idle, the browser too: it would be on another machine.
"""

import asyncio
import contextlib
import json
import sys
import tempfile
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from websockets.asyncio.client import connect

from common.placement import die_with_parent, step_back

_SWITCHES = ("--headless=new", "--remote-debugging-port=0", "--no-sandbox", "--disable-gpu", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync")
_MOST_BYTES = 4 * 2**20


async def _scrape(port: int) -> int:
    """One GET of /metrics, as Prometheus does it; returns how many bytes came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        answer = await reader.read()
    finally:
        writer.close()
    if not answer.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"a scrape was refused: {answer[:80]!r}")
    return len(answer)


async def look(port: int, count: int, told: dict[str, int], began: asyncio.Event) -> None:
    """Until cancelled."""
    waiting = {number for number in range(count)}

    async def page(number: int) -> None:
        async with connect(f"ws://127.0.0.1:{port}/stream", origin=f"http://127.0.0.1:{port}", compression=None,
                           subprotocols=["alpha"], max_size=_MOST_BYTES, open_timeout=60) as connection:
            while True:
                message = await connection.recv(decode=False)
                if message.startswith(b'{"type":"snapshot"'):
                    told["snapshots"] += 1
                    told["bytes"] += len(message)
                    waiting.discard(number)
                    if not waiting:
                        began.set()

    async def scraper() -> None:
        while True:
            await _scrape(port)
            told["scrapes"] += 1
            await asyncio.sleep(1.0)

    async with asyncio.TaskGroup() as tasks:
        for number in range(count):
            tasks.create_task(page(number))
        tasks.create_task(scraper())


@contextlib.asynccontextmanager
async def _browser(path: str, port: int, count: int) -> AsyncIterator[None]:
    """So many tabs of the browser at `path`, until the end of the block."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            path, *_SWITCHES, f"--user-data-dir={profile}", stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL, preexec_fn=die_with_parent)
        told = Path(profile) / "DevToolsActivePort"  # where it listens: headless, it takes one page from its command
        try:
            while not (told.exists() and told.read_text()):
                if process.returncode is not None:
                    raise RuntimeError(f"{path} ended with {process.returncode}")
                await asyncio.sleep(0.05)
            tabs = f"http://127.0.0.1:{told.read_text().split()[0]}/json/new?http://127.0.0.1:{port}/"
            for _ in range(count):
                await asyncio.to_thread(urllib.request.urlopen, urllib.request.Request(tabs, method="PUT"), None, 60)
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()


async def _main(port: int, count: int, browser: str = "") -> None:
    async with _browser(browser, port, count) if browser else contextlib.nullcontext():
        await _report(port, count, 0 if browser else count)


async def _report(port: int, looking: int, sockets: int) -> None:
    told: dict[str, Any] = {"snapshots": 0, "bytes": 0, "scrapes": 0}
    began = asyncio.Event()
    if not sockets:
        began.set()
    look_on = asyncio.create_task(look(port, sockets, told, began))
    first = asyncio.create_task(began.wait())
    await asyncio.wait((look_on, first), return_when=asyncio.FIRST_COMPLETED)
    if look_on.done():
        look_on.result()
    print(json.dumps({"looking": looking}), flush=True)
    asked = asyncio.create_task(asyncio.to_thread(sys.stdin.readline))
    await asyncio.wait((look_on, asked), return_when=asyncio.FIRST_COMPLETED)
    if look_on.done():
        look_on.result()
    look_on.cancel()
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    step_back()
    asyncio.run(_main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]))
