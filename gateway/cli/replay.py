"""Prices recorded frames without a network: `ocpp-gateway replay FILE...`.

A file holds one example (`tz`, `policy`, `tariff`, `energy_scale`, `events`), or many as
`{"default_policy": ..., "vectors": [...]}`.  The frames go the way of a charge point's frames:
events, then the ledger.  What cannot be read or priced is reported, and hides nothing else.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, TextIO

import attrs

from ..billing.bill import ADJUSTMENT, decimal_text
from ..billing.ledger import Ledger
from ..billing.session import Session
from ..billing.settlement import Settlement, settle, settle_so_far
from ..config.values import ENERGY_SCALE
from ..domain.charge_point_clock import ChargePointClock
from ..domain.clock import parse_timestamp
from ..domain.events import Event, MessageOrphaned, TransactionStarted
from ..domain.fixed_point import SECOND, ratio, watt_hours
from ..southbound.messages import CHARGE_POINT_ACTIONS, TRANSACTION_ACTIONS, read_request
from ..southbound.request_events import event_of
from ..tariffs.dimensions import UNITS
from ..tariffs.file import read_tariffs
from ..tariffs.tariff import TariffBook
from .comparison import differences

CHARGE_POINT = "CP-1"

DEFAULT_POLICY: Mapping[str, Any] = {
    "suspended_evse": "TIME",
    "faulted": "FREE",
    "idle_detection": "status",
    "idle_power_w": 100,
    "idle_grace_s": 0,
    "post_stop_parking": False,
    "min_billable_wh": 0,
    "max_power_kw": 500,
    "plausibility_slack_wh": 1000,
    "stop_tolerance_wh": 1,
    "rounding": "HALF_UP",
}


class ExampleFault(Exception):
    """The example cannot be replayed: it is not in the form that replay reads."""


def replay(
    example: Mapping[str, Any], *, default_policy: Mapping[str, Any] = DEFAULT_POLICY
) -> dict[str, Any]:
    """What the example's sessions come to, in the form of its `expected`.

    `errors` tells of what a fault of ours kept from being accounted for or priced.
    Raises ExampleFault where the example, or its tariff, cannot be read.
    """
    if not isinstance(example, Mapping):
        raise ExampleFault("an example must be an object")
    ledger = _Replayed(_tariff_book(example, default_policy), _energy_scale(example))
    instants = [_instant(at, "live_at") for at in _listed(example, "live_at")]
    live: list[dict[str, Any]] = []
    for at, event in _events(example):
        while instants[len(live) :] and instants[len(live)] < at:
            live.append(_live(instants[len(live)], ledger))
        ledger.take(event)
    live += [_live(instant, ledger) for instant in instants[len(live) :]]
    found: dict[str, Any] = {
        "id": example.get("id"),
        "sessions": [*ledger.receipts()],
    }
    if ledger.errors:
        found["errors"] = ledger.errors
    if ledger.orphans:
        found["orphan_messages"] = ledger.orphans
    if "live_at" in example:
        for shown, named in zip(live, example["live_at"], strict=True):
            shown["at"] = named
        found["live"] = live
    return found


def main(paths: Sequence[str], *, out: TextIO = sys.stdout, err: TextIO = sys.stderr) -> int:
    """Print one line of JSON for each example; the exit status.

    0: all as expected, or nothing was.  1: an example differs, which stderr tells.  2: a file or
    an example cannot be replayed, or something in it not be priced; its line has `error` or
    `errors`, and stderr tells it, too.
    """
    status = 0
    for path in paths:
        try:
            with open(path, encoding="utf-8") as file:
                document = json.load(file, parse_float=Decimal, parse_constant=_no_number)
            examples = list(_examples(document))
        except (OSError, ValueError, RecursionError, ExampleFault) as exc:
            print(f"{path}: {exc}", file=err)
            status = 2
            continue
        for name, example, policy in examples:
            found = _found(example, policy)
            print(json.dumps(found, ensure_ascii=False, default=str), file=out)
            faults = [found["error"]] if "error" in found else found.get("errors", [])
            differing: list[str] = []
            if not faults and "expected" in example:
                try:
                    differing = list(differences(found, example["expected"]))
                except ValueError as exc:
                    faults = [str(exc)]
            for line in (*faults, *differing):
                print(f"{path}: {name}: {line}", file=err)
            status = max(status, 2 if faults else int(bool(differing)))
    return status


def _found(example: Any, policy: Mapping[str, Any]) -> dict[str, Any]:
    """What `replay` says of it, or only its id and the `error` that it cannot be replayed for."""
    try:
        return replay(example, default_policy=policy)
    except ExampleFault as exc:
        error = str(exc)
    except Exception as exc:  # noqa: BLE001  a bug of ours in one must not hide the others
        error = f"cannot be replayed, for a fault of the gateway's own: {exc!r}"
    return {"id": example.get("id") if isinstance(example, dict) else None, "error": error}


class _Replayed:
    """A ledger that is fed like the gateway's, and what came of it."""

    def __init__(self, tariff_book: TariffBook, energy_scale: Decimal | None = None) -> None:
        self._scale = energy_scale
        self._ledger = Ledger(tariff_book)
        self._journal: list[Event] = []
        self._known: dict[int, Session] = {}
        self.orphans: list[str] = []
        self.errors: list[str] = []

    def take(self, event: Event) -> None:
        if isinstance(event, TransactionStarted):
            event = attrs.evolve(event, energy_scale=self._scale)
        try:
            self._take(event)
        except Exception as exc:  # noqa: BLE001  in the gateway, too, the rest of the ledger stays right
            self.errors.append(f"{type(event).__name__} not accounted for: {exc!r}")

    def _take(self, event: Event) -> None:
        missing = self._ledger.missing_transaction(event)
        if missing is not None:
            scratch = Ledger(self._ledger.tariff_book)
            for past in self._journal:
                scratch.restore(past)
            self._ledger.adopt(scratch, missing)
        derived = self._ledger.post(event)
        self._journal += [event, *derived]
        self.orphans += [one.message for one in derived if isinstance(one, MessageOrphaned)]
        if isinstance(event, TransactionStarted):
            self._known[event.transaction_id] = self._session(event.transaction_id)
        for transaction_id in self._known:
            self._known[transaction_id] = self._session(transaction_id)

    def receipts(self) -> Iterator[dict[str, Any]]:
        for session in self.stopped():
            try:
                yield _session(settle(session))
            except Exception as exc:  # noqa: BLE001  one must not hide the others
                transaction_id = session.opening.transaction_id
                self.errors.append(f"transaction {transaction_id} cannot be priced: {exc!r}")

    def stopped(self) -> list[Session]:
        return [session for session in self._known.values() if session.stop is not None]

    def newest(self) -> Session | None:
        """The session that started last."""
        return max(self._known.values(), key=lambda s: s.opening.start, default=None)

    def _session(self, transaction_id: int) -> Session:
        return self._ledger.session(transaction_id) or self._known[transaction_id]


# --- reading ------------------------------------------------------------------------------------


def _examples(document: Any) -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    """The name of each example for messages, the example, and its default policy."""
    if not isinstance(document, dict):
        raise ExampleFault("an example must be an object")
    if "vectors" not in document:
        yield _name(document, "example"), document, DEFAULT_POLICY
        return
    policy = document.get("default_policy", DEFAULT_POLICY)
    if not isinstance(policy, dict | Mapping):
        raise ExampleFault("default_policy must be an object")
    for index, example in enumerate(_listed(document, "vectors")):
        yield _name(example, f"vectors[{index}]"), example, policy


def _name(example: Any, default: str) -> str:
    name = example.get("id") if isinstance(example, dict) else None
    return default if name is None else str(name)


def _listed(value: Mapping[str, Any], name: str) -> list[Any]:
    found = value.get(name, [])
    if not isinstance(found, list):
        raise ExampleFault(f"{name} must be a list")
    return found


def _tariff_book(example: Mapping[str, Any], default_policy: Mapping[str, Any]) -> TariffBook:
    tariff, policy = example.get("tariff"), example.get("policy") or {}
    if not isinstance(policy, Mapping):
        raise ExampleFault("policy must be an object")
    tariffs = tariff if isinstance(tariff, list) else [] if tariff is None else [tariff]
    document = {"tariffs": tariffs, "policy": {**default_policy, **policy}}
    tariff_book, faults = read_tariffs(document, default_time_zone=example.get("tz"))
    fatal = "; ".join(f"{fault.where}: {fault.what}" for fault in faults if fault.fatal)
    if fatal:
        raise ExampleFault(fatal)
    return tariff_book


def _energy_scale(example: Mapping[str, Any]) -> Decimal | None:
    """As `[charge_points] energy_scale` has it; None for 1."""
    if (given := example.get("energy_scale")) is None:
        return None
    try:
        scale: Decimal = ENERGY_SCALE(given)
    except ValueError as exc:
        raise ExampleFault(f"energy_scale {exc}") from exc
    return None if scale == 1 else scale


def _events(example: Mapping[str, Any]) -> Iterator[tuple[datetime, Event]]:
    """The frames' events with the time of receipt, transactions numbered as they were."""
    lines = [_line(item) for item in _listed(example, "events")]
    given = {
        frame[1]: frame[2]["transactionId"]
        for _, frame in lines
        if len(frame) == 3
        and frame[0] == 3
        and isinstance(frame[2], dict)
        and isinstance(frame[2].get("transactionId"), int)
    }
    clock = ChargePointClock()
    numbers: dict[tuple[Any, ...], int] = {}
    for at, frame in lines:
        if frame[0] != 2 or len(frame) != 4 or not isinstance(frame[2], str):
            continue
        payload = frame[3] if isinstance(frame[3], dict) else {}
        if frame[2] in CHARGE_POINT_ACTIONS:
            reading = read_request(frame[2], payload)
            if reading.fault is not None and frame[2] not in TRANSACTION_ACTIONS:
                continue  # a gateway refuses it
            payload = reading.payload
        event = event_of(frame[2], payload, charge_point_id=CHARGE_POINT, received_at=at)
        clock.note_message(at)
        if event is not None:
            event = clock.judged(event)
        if isinstance(event, TransactionStarted):
            key = (event.connector_id, event.id_tag, event.timestamp, event.meter_start)
            known = None if event.new_transaction else numbers.get(key)
            number = given.get(frame[1]) or known
            if number is None:
                number = max(numbers.values(), default=0) + 1
            repeated = number in numbers.values()
            numbers[key] = number
            event = attrs.evolve(event, transaction_id=number, repeated=repeated)
            clock.started(event)
        if event is not None:
            yield at, event


def _line(item: Any) -> tuple[datetime, list[Any]]:
    if not isinstance(item, dict) or not isinstance(item.get("frame"), list) or not item["frame"]:
        raise ExampleFault("an event must be an object with `at` and `frame`")
    return _instant(item.get("at"), "at"), item["frame"]


def _instant(value: Any, name: str) -> datetime:
    at = parse_timestamp(value)
    if at is None:
        raise ExampleFault(f"{name} must be a date and time like 2026-01-31T00:00:00Z")
    return at


def _no_number(name: str) -> Any:
    raise ExampleFault(f"{name} is not JSON")


# --- showing ------------------------------------------------------------------------------------


def _live(at: datetime, ledger: _Replayed) -> dict[str, Any]:
    session = ledger.newest()
    if session is None:
        return {"at": at.isoformat()}
    settlement = settle(session) if session.closed else settle_so_far(session)
    return {
        "at": at.isoformat(),
        "energy_wh": str(watt_hours(settlement.nwh)),
        "duration_s": decimal_text(ratio(settlement.end - session.opening.start, SECOND)),
        "idle_s": decimal_text(ratio(settlement.pricing.idle, SECOND)),
        **_totals(settlement),
    }


def _session(settlement: Settlement) -> dict[str, Any]:
    session, bill = settlement.session, settlement.bill
    opening, stop = session.opening, session.stop
    tariff = opening.terms.tariff
    exact = (None, None) if bill is None else (bill.units(bill.excl), bill.units(bill.incl))
    return {
        "transaction_id": opening.transaction_id,
        "tariff_id": None if tariff is None else tariff.id,
        "energy_wh": str(watt_hours(settlement.nwh)),
        "duration_s": decimal_text(ratio(settlement.end - opening.start, SECOND)),
        "charging_s": decimal_text(ratio(settlement.pricing.charging, SECOND)),
        "idle_s": decimal_text(ratio(settlement.pricing.idle, SECOND)),
        "stop_reason": None if stop is None else stop.reason,
        "currency": None if tariff is None else tariff.currency,
        "lines": list(_lines(settlement)),
        "exact_excl_vat": None if exact[0] is None else decimal_text(exact[0], 12),
        "exact_incl_vat": None if exact[1] is None else decimal_text(exact[1], 12),
        **_totals(settlement),
        "flags": list(settlement.flags),
        "signed_values": len(session.signed),
    }


def _lines(settlement: Settlement) -> Iterable[dict[str, Any]]:
    bill = settlement.bill
    if bill is None:
        return
    for line in bill.lines():
        component = None if line.component < 0 else bill.tariff.components[line.component]
        vat = None if component is None else component.vat
        yield {
            "dimension": line.dimension,
            "unit_price": None if component is None else str(component.price),
            "vat": None if vat is None else str(vat),
            "step_size": None if component is None else component.step_size,
            "quantity": decimal_text(line.quantity),
            "billed_quantity": decimal_text(line.billed_quantity),
            "unit": "session" if line.dimension == ADJUSTMENT else UNITS[line.dimension],
            "cost_excl_vat": decimal_text(line.excl),
            "cost_incl_vat": decimal_text(line.incl),
        }


def _totals(settlement: Settlement) -> dict[str, str | None]:
    bill = settlement.bill
    if bill is None:
        return {"total_excl_vat": None, "total_incl_vat": None}
    return {
        "total_excl_vat": str(bill.money(bill.excl)),
        "total_incl_vat": str(bill.money(bill.incl)),
    }
