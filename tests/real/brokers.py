"""Real brokers on free ports of this machine."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def wait_until(condition: Callable[[], Any], within: float = 30) -> None:
    with trio.fail_after(within):
        while not condition():  # noqa: ASYNC110  what is waited for lies in other processes
            await trio.sleep(0.02)


async def wait_listening(port: int, within: float = 10) -> None:
    """Return once something accepts connections there."""
    with trio.fail_after(within):
        while True:
            try:
                stream = await trio.open_tcp_stream("127.0.0.1", port)
            except OSError:
                await trio.sleep(0.02)
            else:
                await stream.aclose()
                return


@attrs.define
class Mosquitto:
    """A Mosquitto that can be killed and started again on its port."""

    port: int
    config: Path
    process: trio.Process | None = None

    async def start(self) -> None:
        self.process = await trio.lowlevel.open_process(
            ["/usr/sbin/mosquitto", "-c", str(self.config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        await wait_listening(self.port)

    async def kill(self) -> None:
        """As a power cut would."""
        if self.process is not None:
            self.process.kill()
            await self.process.wait()
            self.process = None


@asynccontextmanager
async def open_mosquitto(folder: Path, *more: str) -> AsyncIterator[Mosquitto]:
    """A broker of one's own that lets anyone in.  more: lines of its configuration."""
    port = free_port()
    config = folder / f"mosquitto-{port}.conf"
    lines = [
        f"listener {port} 127.0.0.1",
        "allow_anonymous true",
        "max_queued_messages 0",
        "user root",  # where root starts it: it must read what the test wrote
        *more,
    ]
    config.write_text("\n".join(lines) + "\n")
    broker = Mosquitto(port, config)
    try:
        await broker.start()
        yield broker
    finally:
        with trio.CancelScope(shield=True):
            await broker.kill()


@asynccontextmanager
async def open_mute_broker() -> AsyncIterator[int]:
    """A port that accepts TCP connections, reads, and never says a word."""

    async def listen_only(stream: trio.SocketStream) -> None:
        async for _ in stream:
            pass

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, listen_only, listeners)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()
