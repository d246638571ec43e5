"""Single calls of the hot path, timed in a process of their own; one JSON line per figure."""

from __future__ import annotations

import argparse
import gc
import json
import time
import timeit
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from . import messages
from .figures import below, figure, skipped
from .processes import TARIFFS

if TYPE_CHECKING:
    from gateway.domain.events import Event

REPEATS = 7
CHARGE_POINT = "BENCH-00001"


def best_us(call: Callable[[], object], seconds: float) -> float:
    """The best of several repeats: what disturbs a measurement only ever adds."""
    timer = timeit.Timer(call)
    count, took = timer.autorange()
    count = max(1, round(count * seconds / REPEATS / took))
    return round(min(timer.repeat(REPEATS, count)) / count * 1e6, 2)


def meter_values() -> str:
    """A MeterValues frame of the load, 10 sampled values."""
    charger = messages.Charger(1, "BENCH")
    charger.number, charger.transaction_id = 123456, b"123456"
    return f'[2,"{charger.number}",{messages.meter(charger).decode()}]'


def decoding(seconds: float) -> None:
    name = "micro.meter_values_to_event_us"
    try:
        from gateway.southbound import messages, request_events
    except ImportError as error:
        skipped(name, error)
        return
    text, received_at = meter_values(), datetime.now(UTC)

    def decode() -> Any:
        request = messages.decode(text)
        return request_events.event_of(
            request.action, request.payload, charge_point_id=CHARGE_POINT, received_at=received_at
        )

    samples = [sample for reading in decode().readings for sample in reading.samples]
    assert len(samples) == 10
    value = best_us(decode, seconds)
    what = f"decode, validate and build the event of a MeterValues, 10 samples, {len(text)} bytes"
    alone = best_us(lambda: messages.decode(text), seconds)
    figure(name, value, "us", what, decode_and_validate_us=alone, **below(25, value))


def twelve_elements() -> dict[str, Any]:
    """Prices by time of day, weekday, energy and duration, with idle fees: a busy tariff."""

    def element(price: float, kind: str = "ENERGY", **restrictions: Any) -> dict[str, Any]:
        component = {"type": kind, "price": price, "vat": 21.0, "step_size": 1}
        return {"price_components": [component], "restrictions": restrictions}

    elements = [
        element(0.61, start_time="17:00", end_time="21:00", day_of_week=["MONDAY", "FRIDAY"]),
        element(0.31, start_time="23:00", end_time="06:00"),
        element(0.41, day_of_week=["SATURDAY", "SUNDAY"], max_kwh=50),
        element(0.44, start_time="06:00", end_time="09:30"),
        element(0.47, min_kwh=150),
        element(0.49, start_date="2026-07-01", end_date="2026-09-01"),
        element(0.51),
        element(2.40, "PARKING_TIME", start_time="08:00", end_time="18:00", min_duration=5_400),
        element(1.20, "PARKING_TIME", min_duration=14_400),
        element(0.60, "TIME", min_duration=28_800),
        element(0.30, "TIME", start_time="17:00", end_time="21:00"),
        element(0.50, "FLAT"),
    ]
    tariff = {"id": "TWELVE", "currency": "EUR", "elements": elements}
    return {"tariffs": [tariff], "assign": [{"default": True, "tariffs": ["TWELVE"]}]}


def pricing(name: str, document: dict[str, Any], seconds: float, target: float | None) -> None:
    try:
        from gateway.billing.ledger import Ledger
        from gateway.tariffs.file import read_tariffs
    except ImportError as error:
        skipped(name, error)
        return
    document = json.loads(json.dumps(document), parse_float=Decimal)
    tariff_book, faults = read_tariffs(document, default_time_zone="Europe/Amsterdam")
    assert not [fault for fault in faults if fault.fatal], faults
    recorded = events(earlier=500, timed=100)
    early, late = [], []
    end = time.perf_counter() + seconds
    while len(late) < REPEATS or time.perf_counter() < end:
        ledger = Ledger(tariff_book)
        ledger.post(recorded[0])
        early.append(post_us(ledger, recorded[1:101]))
        for event in recorded[101:501]:
            ledger.post(event)
        late.append(post_us(ledger, recorded[501:]))
    ledger = Ledger(tariff_book)
    costs = [fact.progress.cost_total for event in recorded for fact in ledger.post(event)]
    assert costs[-1] > costs[0] > 0, (costs[0], costs[-1])
    elements = len(document["tariffs"][0]["elements"])
    what = "account for and price one MeterValues of an open transaction, 500 samples earlier"
    judged = {} if target is None else below(target, min(late))
    figure(name, min(late), "us", what, elements=elements, with_first_100_us=min(early), **judged)


def events(*, earlier: int, timed: int) -> list[Event]:
    """A start and its meter values, one a minute, 10 samples each, of a 22 kW session."""
    from gateway.domain.event_values import Reading, Sample
    from gateway.domain.events import MeterSampled, TransactionStarted

    payload = json.loads(meter_values())[3]
    samples = [Sample(**sample) for sample in payload["meterValue"][0]["sampledValue"]]
    begun = datetime(2026, 1, 5, 8, tzinfo=UTC)
    about: dict[str, Any] = {"charge_point_id": CHARGE_POINT, "connector_id": 1}
    about["transaction_id"] = 1
    recorded: list[Event] = [
        TransactionStarted(
            **about, received_at=begun, timestamp=begun, id_tag="TAG00001", meter_start="0"
        )
    ]
    for minute in range(1, earlier + timed + 1):
        at = begun + timedelta(minutes=minute)
        register = Sample(
            value=f"{22_000 / 60 * minute:.3f}",
            measurand="Energy.Active.Import.Register",
            context="Sample.Periodic",
            format="Raw",
            location="Outlet",
            unit="Wh",
        )
        reading = Reading(at, (register, *samples[1:]))
        recorded.append(MeterSampled(**about, received_at=at, timestamp=at, readings=(reading,)))
    return recorded


def post_us(ledger: Any, recorded: list[Event]) -> float:
    gc.disable()
    began = time.perf_counter()
    for event in recorded:
        ledger.post(event)
    took = time.perf_counter() - began
    gc.enable()
    return round(took / len(recorded) * 1e6, 2)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.micro", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args()
    decoding(options.seconds)
    pricing("micro.price_meter_values_us", TARIFFS, options.seconds, None)
    pricing("micro.price_meter_values_12_us", twelve_elements(), options.seconds, 150)


if __name__ == "__main__":
    main()
