"""Real processes for tests: the gateway, a charge point that shares no code with it, a broker.

Each is ended in all cases; what it writes is heard line by line.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import trio

ROOT = Path(__file__).parents[2]
CHARGER = Path(__file__).with_name("independent_charger.py")
TOKEN = "TEST-GATEWAY"
DAY = (datetime.now(UTC) - timedelta(days=2)).date()
"""Of sessions that are sent afterwards: not so long ago that nobody would believe it."""


@attrs.define(eq=False)
class Program:
    """A process and what it has said."""

    process: trio.Process
    log: Path
    lines: list[str] = attrs.field(factory=list)
    _heard: trio.Condition = attrs.field(factory=trio.Condition)
    _ended: bool = False

    async def listen(self) -> None:
        assert self.process.stdout is not None
        rest = b""
        async for data in self.process.stdout:
            *lines, rest = (rest + data).split(b"\n")
            async with self._heard:
                self.lines += [line.decode() for line in lines]
                self._heard.notify_all()
        async with self._heard:
            self._ended = True
            self._heard.notify_all()

    async def line(
        self, wanted: Callable[[str], bool], *, after: int = 0, within: float = 20
    ) -> str:
        """The first line that is wanted, from line `after` on.  Raises EOFError at the end."""
        with trio.fail_after(within):
            async with self._heard:
                while True:
                    for line in self.lines[after:]:
                        if wanted(line):
                            return line
                    if self._ended:
                        raise EOFError(f"{self.lines[after:]}\n{self.complaint()}")
                    await self._heard.wait()

    async def end(self, within: float = 20) -> int:
        """Its exit status, once it has left by itself."""
        with trio.fail_after(within):
            return await self.process.wait()

    async def stop(self, number: int = signal.SIGTERM, within: float = 20) -> int:
        self.process.send_signal(number)
        return await self.end(within)

    def complaint(self) -> str:
        return self.log.read_text(errors="replace")

    def last_words(self) -> str:
        return self.complaint().strip().rpartition("\n")[2]


@asynccontextmanager
async def running(command: list[str], log: Path, **more: Any) -> AsyncIterator[Program]:
    """The process while the block runs.  log: what it writes to stderr, appended."""
    async with trio.open_nursery() as nursery:
        with log.open("ab") as errors:
            process = await trio.lowlevel.open_process(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=ROOT,
                # A shell that runs the tests in its background has them ignore SIGINT.
                **{"preexec_fn": partial(signal.signal, signal.SIGINT, signal.SIG_DFL), **more},
            )
        program = Program(process, log)
        nursery.start_soon(program.listen)
        try:
            yield program
        finally:
            if process.returncode is None:
                process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
                for pipe in (process.stdin, process.stdout):
                    await pipe.aclose()
        nursery.cancel_scope.cancel()


# --- the gateway -----------------------------------------------------------------------------


@attrs.frozen
class Site:
    """Where a gateway runs: its ports stay the same over restarts."""

    folder: Path
    ocpp: int = attrs.field(factory=lambda: free_port())
    ocpp_tls: int = attrs.field(factory=lambda: free_port())
    admin: int = attrs.field(factory=lambda: free_port())
    mqtt: int = attrs.field(factory=lambda: free_port())

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.ocpp}/ocpp"

    @property
    def store(self) -> Path:
        return self.folder / "gateway.db"

    @property
    def log(self) -> Path:
        return self.folder / f"gateway-{self.ocpp}.log"

    @property
    def config(self) -> Path:
        return self.folder / "gateway.toml"

    def configure(self, *, token: str | None = TOKEN, more: str = "", ocpp: str = "") -> Path:
        """Write the configuration: 0.25 EUR a kWh and 1.00 a start, with 21 % VAT."""
        (self.folder / "tariffs.json").write_text(json.dumps(TARIFFS))
        self.config.write_text(
            f'[ocpp]\nlisten = "127.0.0.1:{self.ocpp}"\ngrace_s = 5\n{ocpp}\n'
            f'[thingsboard]\nhost = "127.0.0.1"\nport = {self.mqtt}\n'
            + (f'access_token = "{token}"\n' if token else "")
            + f'[storage]\nurl = "sqlite://{self.store}"\n'
            '[pricing]\ntime_zone = "Europe/Amsterdam"\ntariffs = "tariffs.json"\n'
            f'[admin]\nlisten = "127.0.0.1:{self.admin}"\n{more}\n'
        )
        return self.config

    def rows(self, sql: str) -> list[Any]:
        """What the store holds, read while the gateway writes it; nothing while there is none."""
        if not self.store.exists():
            return []
        with closing(sqlite3.connect(f"file:{self.store}?mode=ro", uri=True, timeout=5)) as db:
            try:
                return db.execute(sql).fetchall()
            except sqlite3.OperationalError as exc:
                if "no such table" in str(exc):
                    return []
                raise


TARIFFS = {
    "tariffs": [
        {
            "id": "TEST",
            "currency": "EUR",
            "elements": [
                {
                    "price_components": [
                        {"type": "ENERGY", "price": 0.25, "vat": 21.0, "step_size": 1},
                        {"type": "FLAT", "price": 1.00, "vat": 21.0, "step_size": 1},
                    ]
                }
            ],
        }
    ],
    "assign": [{"default": True, "tariffs": ["TEST"]}],
}


def gateway_command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "gateway", *map(str, arguments)]


@asynccontextmanager
async def gateway(site: Site, *, ready: bool = True, **more: Any) -> AsyncIterator[Program]:
    """`run` on the site; once it has said that it is ready, unless it is not to be."""
    command = gateway_command("run", "--config", site.config)
    async with running(command, site.log, **more) as program:
        if ready:
            await program.line(lambda line: line.startswith("ready "))
        yield program


# --- the charge point ------------------------------------------------------------------------


@attrs.define(eq=False)
class Charger:
    """The independent charge point, as seen from its stdin and stdout."""

    program: Program
    _after: int = 0

    async def wait_event(self, event: str, within: float = 20, **about: Any) -> dict[str, Any]:
        """The next event of the kind that nobody has heard yet; those before it are passed by."""

        def wanted(line: str) -> bool:
            report = json.loads(line)
            return report["event"] == event and all(report.get(k) == v for k, v in about.items())

        line = await self.program.line(wanted, after=self._after, within=within)
        self._after = self.program.lines.index(line, self._after) + 1
        return json.loads(line)

    async def say(self, action: str, **payload: Any) -> None:
        assert self.program.process.stdin is not None
        await self.program.process.stdin.send_all(json.dumps([action, payload]).encode() + b"\n")

    async def ask(self, action: str, **payload: Any) -> dict[str, Any]:
        """Send a CALL and give what its CALLRESULT says."""
        await self.say(action, **payload)
        return (await self.wait_event("answer", action=action))["payload"]

    async def outcome(self, action: str, **payload: Any) -> dict[str, Any]:
        """Send a CALL and give how it ended: an `answer`, `refused` or `closed` event."""
        await self.say(action, **payload)
        ends = ("answer", "refused", "closed")
        line = await self.program.line(
            lambda line: json.loads(line)["event"] in ends, after=self._after
        )
        self._after = self.program.lines.index(line, self._after) + 1
        return json.loads(line)

    async def boot(self) -> None:
        answer = await self.ask(
            "BootNotification",
            charge_point_vendor="Independent",
            charge_point_model="Model 3",
            charge_point_serial_number="0042",
            firmware_version="1.2.3",
        )
        assert answer["status"] == "Accepted"

    async def status(self, status: str, minutes_ago: int = 0) -> None:
        at = datetime.now(UTC) - timedelta(minutes=minutes_ago)
        await self.ask(
            "StatusNotification",
            connector_id=1,
            error_code="NoError",
            status=status,
            timestamp=at.isoformat(),
        )

    async def start(self, meter_wh: int, at: str, tag: str = "TAG") -> int:
        answer = await self.ask(
            "StartTransaction", connector_id=1, id_tag=tag, meter_start=meter_wh, timestamp=at
        )
        return answer["transaction_id"]

    async def stop(self, transaction_id: int, meter_wh: int, at: str) -> None:
        await self.ask(
            "StopTransaction", transaction_id=transaction_id, meter_stop=meter_wh, timestamp=at
        )


@asynccontextmanager
async def charger(
    url: str, name: str, folder: Path, *arguments: str, connected: bool = True
) -> AsyncIterator[Charger]:
    command = [sys.executable, str(CHARGER), url, name, *arguments]
    async with running(command, folder / f"{name}.log") as program:
        plugged_in = Charger(program)
        if connected:
            await plugged_in.wait_event("connected")
        yield plugged_in


# --- the broker ------------------------------------------------------------------------------


@asynccontextmanager
async def mosquitto(folder: Path, port: int) -> AsyncIterator[Program]:
    """A real Mosquitto.  Skips the test where there is none."""
    program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    if program is None:
        import pytest

        pytest.skip("mosquitto is not installed")
    config = folder / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n")
    async with running([program, "-c", str(config)], folder / "mosquitto.log") as broker:
        await answers(port)
        yield broker


async def answers(port: int, within: float = 10) -> None:
    """Return once somebody accepts connections there."""
    with trio.fail_after(within):
        while True:
            try:
                stream = await trio.open_tcp_stream("127.0.0.1", port)
            except OSError:  # it tells nobody when it begins to listen
                await trio.sleep(0.02)
            else:
                await stream.aclose()
                return


async def eventually(condition: Callable[[], object], within: float = 10) -> None:
    """Return once it holds, in a file that another process writes."""
    with trio.fail_after(within):
        while not condition():  # noqa: ASYNC110  a file tells nobody that it has changed
            await trio.sleep(0.02)


_given: set[int] = set()


def free_port() -> int:
    """A port that was free, and that nobody else here was given."""
    while True:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = int(sock.getsockname()[1])
        if port not in _given:
            _given.add(port)
            return port


async def http(port: int, request: bytes) -> tuple[int, bytes]:
    """The status and body of one HTTP answer; (0, what came) where it is none."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        with trio.fail_after(10):
            await stream.send_all(request)
            answer = b"".join([data async for data in stream])
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 "):
        return 0, answer
    return int(head.split()[1]), body


async def get(port: int, path: str) -> tuple[int, bytes]:
    return await http(port, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
