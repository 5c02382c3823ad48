"""Pages of the monitor without a browser: WebSockets that take every snapshot and look at none; and a scraper.

    python -m procs.bench.lookers PORT COUNT

Says `{"looking": COUNT}` once each has its first snapshot; at a line, or the end, of standard input what came
meanwhile: `{"snapshots": ..., "bytes": ..., "scrapes": ...}`. Runs when a core is idle: browsers would be on another
machine, and what they draw is not what is measured.
"""

import asyncio
import json
import sys
from typing import Any

from websockets.asyncio.client import connect

from common.placement import step_back

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


async def _main(port: int, count: int) -> None:
    told: dict[str, Any] = {"snapshots": 0, "bytes": 0, "scrapes": 0}
    began = asyncio.Event()
    looking = asyncio.create_task(look(port, count, told, began))
    first = asyncio.create_task(began.wait())
    await asyncio.wait((looking, first), return_when=asyncio.FIRST_COMPLETED)
    if looking.done():
        looking.result()
    print(json.dumps({"looking": count}), flush=True)
    asked = asyncio.create_task(asyncio.to_thread(sys.stdin.readline))
    await asyncio.wait((looking, asked), return_when=asyncio.FIRST_COMPLETED)
    if looking.done():
        looking.result()
    looking.cancel()
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    step_back()
    asyncio.run(_main(int(sys.argv[1]), int(sys.argv[2])))
