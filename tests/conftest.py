from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from functools import partial
from inspect import iscoroutinefunction
from typing import Any

import attrs
import pytest
import structlog
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from gateway.app import AppSettings, Now, RunningGateway, run
from gateway.tariffs.file import read_tariffs
from gateway.tariffs.tariff import TariffBook
from tests.memory_journal import MemoryJournal

from .fakes import FakeThingsBoard, MemoryListener, now, plug_in

PER_KWH = {
    "tariffs": [
        {
            "id": "STD",
            "currency": "EUR",
            "elements": [
                {"price_components": [{"type": "ENERGY", "price": Decimal("0.30"), "step_size": 1}]}
            ],
        }
    ],
    "assign": [{"default": True, "tariffs": ["STD"]}],
    "time_zone": "Europe/Amsterdam",
}


def tariff_book_of(document: Any) -> TariffBook:
    tariff_book, faults = read_tariffs(document)
    assert not [fault for fault in faults if fault.fatal], faults
    return tariff_book


@attrs.define
class Gateway:
    """The real `run()`, its sockets in memory and its clock virtual."""

    listener: MemoryListener = attrs.field(factory=MemoryListener)
    thingsboard: FakeThingsBoard = attrs.field(factory=FakeThingsBoard)
    journal: MemoryJournal = attrs.field(factory=MemoryJournal)
    stop: trio.Event = attrs.field(factory=trio.Event)
    settings: AppSettings = attrs.field(factory=AppSettings)
    tariff_book: TariffBook = attrs.field(factory=partial(tariff_book_of, PER_KWH))
    now: Now = now
    running: RunningGateway | None = None

    @asynccontextmanager
    async def charger(self, charge_point_id: str, **how: Any) -> AsyncIterator[Any]:
        async with plug_in(await self.listener.connect(), charge_point_id, **how) as charger:
            yield charger

    def events(self, kind: type) -> list[Any]:
        return [entry.event for entry in self.journal._entries if isinstance(entry.event, kind)]

    async def settled(self) -> None:
        """Wait until all that was sent is accounted for and published.

        Both gather for a few milliseconds, so it takes a moment of virtual time.
        """
        await trio.sleep(0.5)
        await wait_all_tasks_blocked()

    async def run(
        self, *, task_status: trio.TaskStatus[RunningGateway] = trio.TASK_STATUS_IGNORED
    ) -> None:
        async def wait_stop(running: RunningGateway) -> None:
            self.running = running
            await self.stop.wait()

        await run(
            self.journal,
            [self.listener],
            self.thingsboard.open_link,
            self.tariff_book,
            self.now,
            self.settings,
            wait_stop,
            task_status=task_status,
        )


@asynccontextmanager
async def open_gateway(**parts: Any) -> AsyncIterator[Gateway]:
    """A gateway, stopped in good order on leaving."""
    gateway = Gateway(**parts)
    async with trio.open_nursery() as nursery:
        await nursery.start(gateway.run)
        yield gateway
        gateway.stop.set()


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with open_gateway() as gateway:
        yield gateway


@pytest.fixture(autouse=True)
def quiet_logs() -> Any:
    """Logs as data for those who ask (`caplog` knows nothing of structlog), else nowhere."""
    structlog.reset_defaults()  # another test may have run a command, which configures them
    with structlog.testing.capture_logs() as logs:
        yield logs


@pytest.fixture(autouse=True)
def long_computations_take_no_virtual_time(request: Any, monkeypatch: Any) -> None:
    """A virtual clock knows nothing of threads: it would jump while one computes."""

    async def here(compute: Any, **_: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return compute()

    if "real_time" not in request.keywords:
        monkeypatch.setattr("gateway.offload.run_in_thread", here)


def _virtual_run(fn: Any, *, clock: Any = None, instruments: Any = ()) -> Any:
    return trio.run(fn, clock=clock or MockClock(autojump_threshold=0), instruments=instruments)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Time is virtual in every test that does not ask for real_time.

    (pytest-trio takes a clock from the test's own arguments only, not from its fixtures'.)
    """
    for item in items:
        if iscoroutinefunction(item.obj) and "real_time" not in item.keywords:  # type: ignore[attr-defined]
            item.add_marker(pytest.mark.trio(run=_virtual_run))
