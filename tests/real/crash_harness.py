"""The gateway dies again and again while cars charge and ThingsBoard fails; then all is counted.

What is counted is known from the chargers alone: what they sent is what must be in the store and
in ThingsBoard, once, whenever it was that something died.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import attrs
import trio

from gateway.simulation.thingsboard import Act, Fault, ThingsBoard

from .processes import TOKEN, Program, Site, running
from .retrying_charger import RetryingCharger, Session

SCRIPT = Path(__file__).with_name("crashing_gateway.py")
LOG = "ocpp-gateway sessions"
CENT = Decimal("0.01")
#: What may happen to a PUBLISH, each once at a time.
PUBLISH_FAULTS = (
    Act.CLOSE,
    Act.ACK_AND_CLOSE,
    Act.DUPLICATE_ACK,
    Act.DELAY,
    Act.REFUSE,
    Act.RATE_LIMIT,
    Act.NO_ACK,
)


# --- the gateway that crashes --------------------------------------------------------------------


@attrs.define(eq=False)
class CrashingGateway:
    """A gateway that starts again by a line.  count: how often it has started."""

    program: Program
    count: int = 0
    alive: bool = False
    _pid: int = 0
    _heard: int = 0

    async def start(self, **faults: Any) -> None:
        """Start a gateway, just forked.  faults: what happens to it, see `crashing_gateway`."""
        assert self.program.process.stdin is not None
        await self.program.process.stdin.send_all(json.dumps(faults).encode() + b"\n")
        self._pid = int((await self._next("started ")).split()[1])
        self.count += 1
        self.alive = True

    async def ready(self) -> None:
        line = await self._next("ready ", "ended ")
        assert line.startswith("ready "), f"{line}: {self.program.last_words()}"

    def send(self, number: int) -> None:
        os.kill(self._pid, number)

    async def kill(self, *, stopping: bool = False) -> None:
        """End it where it stands.

        stopping: it may have ended by SIGTERM already; that it ends by itself is wrong.
        """
        with suppress(ProcessLookupError):
            self.send(signal.SIGKILL)
        fine = {-signal.SIGKILL, -signal.SIGTERM, 0} if stopping else {-signal.SIGKILL}
        assert await self.ended() in fine, self.program.last_words()

    async def ended(self, within: float = 30) -> int:
        """The exit status of this run, negative for a signal."""
        status = int((await self._next("ended ", within=within)).split()[1])
        self.alive = False
        return status

    async def _next(self, *wanted: str, within: float = 30) -> str:
        line = await self.program.line(
            lambda line: line.startswith(wanted), after=self._heard, within=within
        )
        self._heard = self.program.lines.index(line, self._heard) + 1
        return line


@asynccontextmanager
async def open_crashing_gateway(site: Site) -> AsyncIterator[CrashingGateway]:
    command = [sys.executable, str(SCRIPT), str(site.config)]
    async with running(command, site.log) as program:
        crashing = CrashingGateway(program)
        try:
            yield crashing
        finally:
            if crashing.alive:
                with trio.CancelScope(shield=True):
                    await crashing.kill()


# --- what ThingsBoard stored ---------------------------------------------------------------------


@attrs.define(eq=False)
class StoredTelemetry:
    """Every value that ThingsBoard ever stored, by whichever run it was sent.

    points: (device, key) -> ts -> value.  contradictions: what had another value before.
    """

    points: dict[tuple[str, str], dict[int, Any]] = attrs.field(factory=dict)
    contradictions: list[tuple[str, str, int, Any, Any]] = attrs.field(factory=list)
    repeated: int = 0
    _more: trio.Event = attrs.field(factory=trio.Event)

    async def wait_for(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._more.wait()
            await trio.sleep(0.1)  # counting all at each row would take longer than receiving it

    async def listen(self, thingsboard: ThingsBoard) -> None:
        with thingsboard.rows(buffer=1_000_000) as rows:
            async for row in rows:
                if row.is_attributes:
                    continue
                for key, value in row.values.items():
                    points = self.points.setdefault((row.device, key), {})
                    before = points.setdefault(row.ts, value)
                    self.repeated += before == value
                    # whether a charge point is connected is our own time, not its: a restart
                    # within a millisecond may say both
                    if before != value and key != "connected":
                        self.contradictions.append((row.device, key, row.ts, before, value))
                self._more.set()
                self._more = trio.Event()

    def series(self, device: str, key: str) -> dict[int, Any]:
        return self.points.get((device, key), {})


# --- the test ------------------------------------------------------------------------------------


@attrs.define(eq=False)
class CrashTest:
    """seed: of all chance.  chargers: how many.

    max_run_s: seconds at most from a start to a kill.  pause: see `RetryingCharger`.
    besides: what else happens to ThingsBoard and the fleet meanwhile, until it is cancelled.
    """

    site: Site
    seed: int
    chargers: int = 6
    max_run_s: float = 1.0
    pause: float = 0.05
    besides: Callable[[ThingsBoard, list[RetryingCharger]], Awaitable[None]] | None = None
    starts: int = 0
    telemetry: StoredTelemetry = attrs.field(factory=StoredTelemetry)
    fleet: list[RetryingCharger] = attrs.field(factory=list)
    thingsboard: ThingsBoard = attrs.field(
        factory=lambda: ThingsBoard(access_tokens=[TOKEN], history=1, kept_messages=1)
    )

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[CrashingGateway]:
        """ThingsBoard, the fleet's plan and a gateway that has not started yet.

        On leaving the block it must run: then all is stored, and it is stopped in order.
        """
        chance = random.Random(self.seed)
        began = datetime.now(UTC).replace(microsecond=0) - timedelta(days=60)
        self.site.configure(ocpp="stale_session_h = 8760")
        self.fleet = [
            RetryingCharger(
                f"CP-{n}",
                lambda: self.site.ocpp,
                random.Random(chance.random()),
                began=began,
                pause=self.pause,
            )
            for n in range(self.chargers)
        ]
        async with open_crashing_gateway(self.site) as crashing, trio.open_nursery() as nursery:
            await nursery.start(self.thingsboard.serve_tcp, "127.0.0.1", self.site.mqtt)
            nursery.start_soon(self.telemetry.listen, self.thingsboard)
            yield crashing
            with trio.move_on_after(_STORED_WITHIN_S):
                await self.telemetry.wait_for(self._all_stored)
            crashing.send(signal.SIGTERM)
            assert await crashing.ended() == 0
            self.starts = crashing.count
            nursery.cancel_scope.cancel()

    async def run(self, seconds: float) -> None:
        """Kill for so long, then let it run until all is stored."""
        chance = random.Random(~self.seed)
        enough = trio.Event()
        async with self.opened() as crashing, trio.open_nursery() as charging:
            for charger in self.fleet:
                charging.start_soon(charger.live, enough)
            async with trio.open_nursery() as trouble:
                trouble.start_soon(self._inject_faults, random.Random(chance.random()))
                if self.besides is not None:
                    trouble.start_soon(self.besides, self.thingsboard, self.fleet)
                await self._kill(crashing, chance, trio.current_time() + seconds)
                trouble.cancel_scope.cancel()
            self.thingsboard.faults.clear()
            self.thingsboard.thaw()
            enough.set()
            await crashing.start()
            await crashing.ready()

    async def _kill(self, crashing: CrashingGateway, chance: random.Random, until: float) -> None:
        while trio.current_time() < until:
            await crashing.start()
            # sometimes before it is ready, mostly in the midst of its work
            await trio.sleep(chance.uniform(0, self.max_run_s))
            stopping = chance.random() < 0.2
            if stopping:  # and killed in the midst of it
                crashing.send(signal.SIGTERM)
                await trio.sleep(chance.uniform(0, 0.3))
            await crashing.kill(stopping=stopping)

    async def _inject_faults(self, chance: random.Random) -> None:
        """One fault of ThingsBoard after the other."""
        thingsboard = self.thingsboard
        while True:
            await trio.sleep(chance.uniform(0.1, 0.6))
            match chance.randrange(12):
                case 0:
                    thingsboard.disconnect_all()
                case 1:
                    thingsboard.restart()
                case 2:
                    thingsboard.take_over()
                case 3:
                    with thingsboard.frozen():
                        await trio.sleep(chance.uniform(0, 1))
                case 4:
                    thingsboard.faults.add(Fault(act=Act.DROP_CONNECT))
                case 5:
                    thingsboard.faults.add(Fault(act=Act.REFUSE_CONNECT, code=0x88))
                case _ if len(thingsboard.faults) == 0:
                    act = chance.choice(PUBLISH_FAULTS)
                    # what was not acknowledged may be lost, or be there all the same
                    lost = act in (Act.CLOSE, Act.NO_ACK) and chance.random() < 0.7
                    stored = False if lost else None
                    thingsboard.faults.add(Fault(act=act, code=0x83, seconds=0.3, stored=stored))

    # --- the count -----------------------------------------------------------------------------

    def sessions(self) -> list[tuple[str, Session]]:
        return [(charger.name, session) for charger in self.fleet for session in charger.sessions]

    def _all_stored(self) -> bool:
        readings = sum(len(session.readings) for _, session in self.sessions())
        telemetry = sum(len(self.telemetry.series(f"{c.name}/1", "voltage_v")) for c in self.fleet)
        return telemetry >= readings and len(self.telemetry.series(LOG, "receipt")) >= len(
            self.sessions()
        )

    def about(self) -> str:
        """For the message of a failure, and for who looks on."""
        return (
            f"seed {self.seed}: {self.starts} starts, {len(self.sessions())} sessions,"
            f" {sum(len(session.readings) for _, session in self.sessions())} readings,"
            f" {sum(charger.connections for charger in self.fleet)} connections,"
            f" {sum(charger.repeated for charger in self.fleet)} messages repeated though answered,"
            f" {self.telemetry.repeated} values sent more than once"
        )

    def verify(self) -> None:
        """Every session has one receipt, every reading was stored once, no id was given twice."""
        about = self.about()
        by_id: dict[int, tuple[str, Session]] = {}
        for name, session in self.sessions():
            assert len(set(session.ids)) == 1, f"{about}\n{name}: one start, ids {session.ids}"
            other = by_id.setdefault(session.ids[0], (name, session))
            assert other[1] is session, f"{about}\n{name}: id {session.ids[0]} of {other[0]} too"
        stored = self.site.rows("select id from tx where settled > 0 order by id")
        assert [row[0] for row in stored] == sorted(by_id), about
        assert self.site.rows("select * from tx where settled = 0") == [], about
        assert self.site.rows("select * from aside") == [], about
        bodies = self.site.rows("select body from receipt")
        telemetry = self.telemetry.series(LOG, "receipt").values()
        for receipts in ([json.loads(body) for (body,) in bodies], [*telemetry]):
            _verify_receipts(receipts, by_id, about)
        for charger in self.fleet:
            self._verify_readings(charger, about)
        assert self.telemetry.contradictions == [], about
        assert self.thingsboard.failures() == [], about

    def _verify_readings(self, charger: RetryingCharger, about: str) -> None:
        volts: dict[int, Any] = {}
        energies: dict[int, Any] = {}
        for session in charger.sessions:
            assert session.stopped_at is not None
            energies[ms(session.started_at)] = 0
            energies[ms(session.stopped_at)] = session.energy_wh
            for at, (register_wh, voltage) in session.readings.items():
                volts[ms(at)] = voltage
                energies[ms(at)] = register_wh - session.start_wh
        device = f"{charger.name}/1"
        assert self.telemetry.series(device, "voltage_v") == volts, about
        assert self.telemetry.series(device, "tx_energy_wh") == energies, about


_STORED_WITHIN_S = 60.0  # seconds for ThingsBoard to store what is left


def _verify_receipts(
    receipts: list[Any], by_id: dict[int, tuple[str, Session]], about: str
) -> None:
    counted = Counter(receipt["transaction_id"] for receipt in receipts)
    missing = sorted(by_id.keys() - counted.keys())
    doubled = sorted(number for number, times in counted.items() if times > 1)
    assert (missing, doubled) == ([], []), f"{about}\n{missing=} {doubled=}"
    for receipt in receipts:
        name, session = by_id[receipt["transaction_id"]]
        wrong = f"{about}\n{receipt}"
        assert receipt["charge_point"] == name, wrong
        assert int(receipt["energy_wh"]) == session.energy_wh, wrong
        assert receipt["total_incl_vat"] == price(session.energy_wh), wrong
        # that it was repeated is noted, and no reason to doubt it
        assert set(receipt["flags"]) <= {"duplicate_start", "duplicate_stop"}, wrong
        assert receipt["needs_review"] is False, wrong
        assert receipt["version"] == 1, wrong


def price(energy_wh: int) -> str:
    """0.25 EUR a kWh and 1.00 a start, with 21 % VAT, see `Site.configure`."""
    exact = (Decimal(energy_wh) / 1000 * Decimal("0.25") + 1) * Decimal("1.21")
    return str(exact.quantize(CENT, ROUND_HALF_UP))


def ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)
