"""The driver's display: prices and running costs for the charge points that can show them.

DataTransfer as in the OCA's "OCPP & California Pricing Requirements".  The laws:

* No task that serves a charge point waits for its display.
* At most one message is under way to a charge point.
* A message that a newer one has made obsolete is never sent.
* A display that refuses, or does not respond, gets no more until the charge point connects again.
  No other display is affected.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from decimal import Decimal
from typing import Any

import structlog
import trio

from ..billing.driver_messages import (
    MAX_DECIMALS,
    CostEvent,
    DisplayEvent,
    DisplayMessages,
    Payload,
    happened_offline,
)
from ..billing.ledger import Ledger
from ..bus import EventBus, Overflow, Subscription
from ..domain import json_codec
from ..domain.events import (
    ChargePointBooted,
    ChargePointConnected,
    ChargePointDisconnected,
    Event,
    IdTagPresented,
    TransactionOpened,
    TransactionProgressed,
    TransactionSettled,
)
from .connection import ChargePointConnection
from .errors import ChargePointGone, ChargePointRefused, ChargePointSilent, TooManyCalls
from .handlers import COST_MESSAGES, Now
from .messages import InvalidResponse
from .registry import Registry

_SHOWS, _DECIMALS = "CustomDisplayCostAndPrice", "NumberOfDecimalsForCostValues"
_USUAL_DECIMALS = 3
_BOOT_WAIT = 10.0  # seconds for a BootNotification: a charge point that only reconnects sends none
_MAX_WAITING = 32  # messages for one display
_CAPACITY = 20_000  # a whole fleet comes back at once
_MAX_BATCH = 25  # events, without letting others run

log = structlog.get_logger(__name__)


@asynccontextmanager
async def open_driver_displays(
    bus: EventBus, registry: Registry, ledger: Ledger, now: Now
) -> AsyncIterator[None]:
    """Show drivers what they pay, while the block runs."""
    displays = _Displays(registry, DisplayMessages(ledger, bus.fleet), now)
    async with trio.open_nursery() as nursery:
        with bus.subscribe(
            ChargePointConnected,
            ChargePointBooted,
            ChargePointDisconnected,
            IdTagPresented,
            TransactionOpened,
            TransactionProgressed,
            TransactionSettled,
            overflow=Overflow.DROP_OLDEST,
            capacity=_CAPACITY,
        ) as entries:
            nursery.start_soon(displays.follow, entries)  # noqa: ASYNC111  its end is the task's
            yield


class _Displays:
    """Owns: the display of each connection."""

    def __init__(self, registry: Registry, editor: DisplayMessages, now: Now) -> None:
        self._registry = registry
        self._editor = editor
        self._now = now
        self._displays: dict[str, _Display] = {}

    async def follow(self, entries: Subscription) -> None:
        while batch := await entries.take_batch(_MAX_BATCH):
            for entry in batch:
                try:
                    self._handle(entry.event)
                except Exception:
                    log.exception("display not served", seq=entry.seq)
            await trio.lowlevel.checkpoint()

    def _handle(self, event: Event) -> None:
        display = self._of(event.charge_point_id)
        if display is not None:
            display.handle(event)

    def _of(self, charge_point_id: str) -> _Display | None:
        """The display of the charge point's present connection; None where it has none."""
        try:
            connection = self._registry.connection(charge_point_id)
        except ChargePointGone:
            self._displays.pop(charge_point_id, None)
            return None
        display = self._displays.get(charge_point_id)
        if display is None or display.connection is not connection:
            display = _Display(connection, self._editor, self._now)
            self._displays[charge_point_id] = display
            connection.tasks.start_soon(display.run)  # so it ends with the connection
        return display


class _Display:
    """One connection's display.  Owns: what waits to be shown, by transaction; None: a price."""

    def __init__(
        self, connection: ChargePointConnection, editor: DisplayMessages, now: Now
    ) -> None:
        self.connection = connection
        self._editor = editor
        self._now = now
        self._arrival = trio.CancelScope(deadline=trio.current_time() + _BOOT_WAIT)
        self._waiting: dict[int | None, DisplayEvent] = {}
        self._changed = trio.lowlevel.ParkingLot()
        self._starts: dict[int, datetime] = {}  # when they were received
        self._costs: dict[int, tuple[Decimal | None, bool]] = {}  # newest, and whether idle
        self._disabled = False

    def handle(self, event: Event) -> None:
        """Note what the event means for the display: a message, a changed price, or nothing."""
        match event:
            case ChargePointBooted(status="Accepted"):
                self._arrival.cancel()
            case ChargePointBooted():  # not before it is approved (OCPP 1.6 §4.2)
                self._arrival.deadline = math.inf
            case _ if self._disabled:
                pass
            case IdTagPresented(status="Accepted"):
                self._enqueue(None, event)
            case TransactionOpened():
                self._starts[event.transaction_id] = event.received_at
                self._costs[event.transaction_id] = event.progress.cost_total, event.progress.idle
                price = self._waiting.get(None)
                if isinstance(price, IdTagPresented) and _is_same_tag(price.id_tag, event.id_tag):
                    del self._waiting[None]  # the price comes too late
                self._handle_cost(event)
            case TransactionProgressed():
                costs = event.progress.cost_total, event.progress.idle
                known = self._costs.get(event.transaction_id, costs)
                self._costs[event.transaction_id] = costs
                if not event.by_clock or costs != known:
                    self._handle_cost(event)
            case TransactionSettled():
                self._handle_cost(event)
                self._starts.pop(event.transaction_id, None)
                self._costs.pop(event.transaction_id, None)

    def _handle_cost(self, event: CostEvent) -> None:
        start_received_at = self._starts.get(event.transaction_id)
        if start_received_at is not None and happened_offline(event, start_received_at):
            self._waiting.pop(event.transaction_id, None)
        elif not isinstance(event, TransactionSettled):
            if not isinstance(self._waiting.get(event.transaction_id), TransactionSettled):
                self._enqueue(event.transaction_id, event)
        elif event.version == 1 and "stop_inferred" not in event.receipt["flags"]:
            self._enqueue(event.transaction_id, event)
        else:  # a correction, or an end that was inferred: the driver has left
            self._waiting.pop(event.transaction_id, None)

    def _enqueue(self, key: int | None, event: DisplayEvent) -> None:
        if len(self._waiting) >= _MAX_WAITING and key not in self._waiting:
            del self._waiting[next(iter(self._waiting))]
        self._waiting[key] = event
        self._changed.unpark()

    # --- the task -----------------------------------------------------------------------------

    async def run(self) -> None:
        """Show what comes, if there is a display at all, until the connection ends."""
        name = self.connection.charge_point_id
        try:
            decimals = await self._decimals()
            if decimals is not None:
                await self._show(decimals)
        except ChargePointGone:
            pass
        except (ChargePointRefused, ChargePointSilent, InvalidResponse, TooManyCalls) as exc:
            log.info("display not used", charge_point=name, why=repr(exc)[:200])
        except Exception:  # the guard of one charge point: its display is lost, nothing else
            log.exception("display not used", charge_point=name)
        finally:
            self._disabled = True
            self._waiting.clear()
            self._starts.clear()

    async def _decimals(self) -> int | None:
        """Ask the charge point how many decimals it shows; None where it shows nothing."""
        with self._arrival:
            await trio.sleep_forever()
        response = await self.connection.call("GetConfiguration", {"key": [_SHOWS, _DECIMALS]})
        return decimals_of(response)

    async def _show(self, decimals: int) -> None:
        known = True
        while known:
            while not self._waiting:
                await self._changed.park()
            event = self._waiting.pop(next(iter(self._waiting)))
            message = self._editor.message(event, self._now(), decimals)
            if message is not None:
                known = await self._send(*message)
        log.info("display not known", charge_point=self.connection.charge_point_id)

    async def _send(self, message_id: str, data: Payload) -> bool:
        """Whether the charge point knows what such messages are."""
        payload = {
            "vendorId": COST_MESSAGES,
            "messageId": message_id,
            "data": json_codec.encode_text(data),
        }
        try:
            response = await self.connection.call("DataTransfer", payload)
        except TooManyCalls:  # of operators; the next message holds newer costs
            return True
        return bool(response["status"] != "UnknownVendorId")


def _is_same_tag(one: str, other: str) -> bool:
    return one.lower() == other.lower()  # OCPP 1.6 §7.28: an idTag knows no case


def decimals_of(response: Mapping[str, Any]) -> int | None:
    """From GetConfiguration's response; None where the charge point shows no costs."""
    values = {
        str(item["key"]).lower(): str(item.get("value", "")).strip().lower()
        for item in response.get("configurationKey") or ()
    }
    if values.get(_SHOWS.lower()) != "true":
        return None
    digits = values.get(_DECIMALS.lower(), "")
    if digits.isascii() and digits.isdigit():
        return min(int(digits), MAX_DECIMALS)
    return _USUAL_DECIMALS
