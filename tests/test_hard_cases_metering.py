"""The hard cases' group D: what is made of registers and values, over WebSocket.

Each case is answered with a CALLRESULT (`ask` raises else).  What decides is tried one by one in
tests/billing/test_energy_curve.py.
"""

from __future__ import annotations

import time
import tracemalloc
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import trio

from gateway.billing.ledger import Ledger
from gateway.domain.event_values import Sample
from gateway.domain.events import MeterSampled, TransactionProgressed, TransactionSettled

from .billing.builders import CP
from .conftest import PER_KWH, open_gateway, tariff_book_of
from .fakes import EPOCH

BEGIN, END = "Transaction.Begin", "Transaction.End"
INTERVAL = "Energy.Active.Import.Interval"


def clock(minutes: float) -> str:
    return (EPOCH + timedelta(minutes=minutes)).isoformat().replace("+00:00", "Z")


def sampled(minute: float, *samples: Any) -> dict[str, Any]:
    """A meterValue; a bare value is a sample with all of OCPP's defaults."""
    values = [value if isinstance(value, dict) else {"value": value} for value in samples]
    return {"timestamp": clock(minute), "sampledValue": values}


def phase(name: str, value: str, **more: Any) -> dict[str, Any]:
    return {"value": value, "phase": name, **more}


def case(name: str, start: Any, meter: Any, stop: Any, wh: str, *flags: str, **more: Any) -> Any:
    """meter: meterValues, sent one by one.  more: of StopTransaction.  After an hour it stops."""
    return pytest.param(start, meter, stop, wh, set(flags), more, id=name)


JUNK = (
    "1,5", "1.5e3", "", "NaN", "-1", "Infinity", "abc", "9" * 400, "1_000", "\u0661\u0662",
)  # fmt: skip
CASES = [
    case("HC-82 meterStop below, no readings", 5_000, [], 4_000, "0",
         "energy_unknown", "meter_stop_below_start", "needs_review"),
    case("HC-82 meterStop below, readings tell", 5_000, [sampled(30, "5700")], 4_000, "700",
         "meter_stop_below_start", "needs_review"),
    case("HC-83 rollover", 9_999_500, [sampled(20, "9999990"), sampled(40, "10")], 510, "1000",
         "register_reset"),
    case("HC-83 another meter, lower", 800_000, [sampled(20, "800400"), sampled(40, "100")], 300,
         "700", "register_reset"),
    case("HC-83 another meter, higher", 1_000, [sampled(20, "1400"), sampled(40, "900000")],
         900_300, "400", "spike_ignored", "meter_stop_implausible", "needs_review"),
    case("HC-84 from 0 in each session", 0, [sampled(30, "400")], 1_000, "1000"),
    case("HC-84 running", 36, [sampled(30, "436")], 1_036, "1000"),
    case("HC-84 start 0, running register", 0, [sampled(1, "5000100"), sampled(30, "5000500")],
         5_001_100, "1000", "register_rebased", "meter_stop_implausible", "needs_review"),
    case("HC-86 out of order", 0, [sampled(40, "700"), sampled(20, "300")], 1_000, "1000",
         "samples_reordered"),
    case("HC-86 equal times, two values", 0, [sampled(30, "300"), sampled(30, "900")], None, "300",
         "meter_stop_missing", "needs_review"),
    case("HC-87 retried", 0, [sampled(30, "300")] * 3, 1_000, "1000"),
    case("HC-88 transactionData repeats", 0, [sampled(30, "300")], 1_000, "1000",
         transactionData=[sampled(30, "300"), sampled(60, {"value": "1000", "context": END})]),
    case("HC-88 transactionData above meterStop", 0, [], 1_000, "1500",
         "meter_stop_below_samples", "needs_review",
         transactionData=[sampled(60, {"value": "1500", "context": END})]),
    case("HC-88 transactionData below meterStop", 0, [], 1_000, "1000",
         transactionData=[sampled(60, {"value": "900", "context": END})]),
    case("HC-89 kWh beside Wh", 100, [sampled(30, {"value": "0.15005000000000002", "unit": "kWh"})],
         300, "200"),
    case("HC-89 JSON numbers", 100.5, [sampled(30, {"value": 150.25})], 300, "199.5"),
    case("HC-89 JSON exponent", 1e2, [sampled(30, {"value": 1.5e2})], 3e2, "200"),
    case("HC-89 blanks", " 100 ", [sampled(30, " 150 ")], "300", "200"),
    case("HC-89 no readings at all", 100, [sampled(30)], 300, "200"),
    *(
        case(f"HC-89 {junk[:9]!r}", 100, [sampled(30, junk)], 300, "200", "sample_rejected")
        for junk in JUNK
    ),
    case("HC-89 OCMF", 100,
         [sampled(30, {"value": "OCMF|{}|{}", "format": "SignedData", "context": BEGIN})],
         300, "200"),
    case("HC-90 lines", 0,
         [sampled(30, phase("L1", "100"), phase("L2", "100"), phase("L3", "200"))],
         None, "400", "energy_from_phases", "meter_stop_missing", "needs_review"),
    case("HC-90 lines and total", 0, [sampled(30, "400", phase("L1", "100"), phase("L2", "300"))],
         1_000, "1000"),
    case("HC-90 voltages between lines", 0,
         [sampled(30, phase("L1-N", "230", measurand="Voltage", unit="V"), "400")], 1_000, "1000"),
    case("HC-90 outlet before inlet", 0,
         [sampled(30, {"value": "900", "location": "Inlet"},
                  {"value": "400", "location": "Outlet"}),
          sampled(50, {"value": "400", "location": "EV"})], None, "400",
         "meter_stop_missing", "needs_review"),
    case("HC-90 interval beside register", 0,
         [sampled(30, "400", {"value": "400", "measurand": INTERVAL})], 1_000, "1000"),
    case("HC-90 export and reactive", 0,
         [sampled(30, "400", {"value": "9000", "measurand": "Energy.Active.Export.Register"},
                  {"value": "77", "measurand": "Energy.Reactive.Import.Register", "unit": "varh"})],
         1_000, "1000"),
    case("HC-91 contexts of one instant", 0,
         [sampled(30, *({"value": str(value), "context": context} for value, context in (
             (0, BEGIN), (401, "Sample.Clock"), (402, "Trigger"), (403, "Interruption.Begin"),
             (404, "Other"), (400, "Sample.Periodic"))))], None, "400",
         "meter_stop_missing", "needs_review"),
    case("HC-91 begin repeated later", 0,
         [sampled(n, str(n * 10), {"value": "0", "context": BEGIN}) for n in (10, 20, 30)],
         1_000, "1000"),
]  # fmt: skip


@pytest.mark.parametrize(("start", "meter", "stop", "wh", "flags", "more"), CASES)
async def test_a_session_comes_to(gateway, start, meter, stop, wh, flags, more):
    async with gateway.charger("CP-1") as charger:
        await trio.sleep(3_600)  # all is published afterwards, but nothing before it was
        begun = {"connectorId": 1, "idTag": "T", "meterStart": start, "timestamp": clock(0)}
        tx = (await charger.ask("StartTransaction", **begun))["transactionId"]
        for value in meter:
            about = {"connectorId": 1, "transactionId": tx, "meterValue": [value]}
            assert await charger.ask("MeterValues", **about) == {}
        over = {"transactionId": tx, "timestamp": clock(60), "meterStop": stop, **more}
        assert await charger.ask("StopTransaction", **over) == {}
    await gateway.settled()
    assert len(gateway.events(MeterSampled)) == len(meter)
    (settled,) = gateway.events(TransactionSettled)
    assert (settled.receipt["energy_wh"], set(settled.receipt["flags"])) == (wh, flags)


async def test_readings_without_a_transaction_are_of_their_connector_and_time(gateway):
    """HC-85, errata 3.16: the phase's sum, what comes late, and what was before."""
    async with gateway.charger("CP-1") as charger:

        async def sample(connector, *values):
            await charger.ask("MeterValues", connectorId=connector, meterValue=list(values))

        await sample(1, sampled(-5, "900"))
        tx = await charger.start(1_000)
        for connector in (0, 2):  # HC-91: the main meter, and somebody else's
            await sample(connector, sampled(10, "99000"))
        await sample(1, sampled(10, phase("L1", "600"), phase("L2", "700")))
        await gateway.settled()
        assert gateway.events(TransactionProgressed)[-1].progress.energy_wh == 300
        await trio.sleep(1_800)
        await charger.stop(tx, 2_000)
        await gateway.settled()
        (settled,) = gateway.events(TransactionSettled)
        await sample(1, sampled(20, "1900"), sampled(45, "2100"))
        await gateway.settled()
    assert settled.receipt["energy_wh"] == "1000"
    assert gateway.events(TransactionSettled) == [settled]  # sealed: neither reopened nor repriced


async def test_a_transaction_end_after_the_stop_is_audit_only(gateway):
    """HC-86: SAP's `outOfOrderEndMeterValues`."""
    async with gateway.charger("CP-1") as charger:
        tx = await charger.start(0)
        await trio.sleep(600)
        await charger.stop(tx, 1_000)
        late = sampled(9, {"value": "1500", "context": END})
        await charger.ask("MeterValues", connectorId=1, transactionId=tx, meterValue=[late])
        await gateway.settled()
        assert len(gateway.events(MeterSampled)) == 1
    (settled,) = gateway.events(TransactionSettled)
    assert settled.receipt["energy_wh"] == "1000"


DAY_AND_NIGHT = {
    "tariffs": [
        {
            "id": "DN",
            "currency": "EUR",
            "elements": [
                {
                    "price_components": [{"type": "ENERGY", "price": Decimal("0.313"), "vat": 21}],
                    "restrictions": {"start_time": "07:00", "end_time": "00:00"},
                },
                {"price_components": [{"type": "ENERGY", "price": Decimal("0.177"), "vat": 21}]},
            ],
        }
    ],
    "time_zone": "Europe/Amsterdam",
}
NIGHTS = {  # when it begins, and how many hours are day and night
    "HC-100 midnight": (datetime(2025, 1, 14, 20, tzinfo=UTC), 3, 3),
    "HC-100 spring forward": (datetime(2025, 3, 29, 20, tzinfo=UTC), 3, 3),
    "HC-100 fall back": (datetime(2025, 10, 25, 20, tzinfo=UTC), 2, 4),
    "HC-100 end of month": (datetime(2025, 1, 31, 20, tzinfo=UTC), 3, 3),
    "HC-100 leap day": (datetime(2024, 2, 28, 20, tzinfo=UTC), 3, 3),
}


@pytest.mark.parametrize(("begun", "by_day", "by_night"), NIGHTS.values(), ids=NIGHTS)
@pytest.mark.parametrize("every", [360, 45, 7, 1])
async def test_a_night_costs_the_same_however_it_is_sampled(begun, by_day, by_night, every):
    """Six hours at 6 kW: to midnight by day's price, then by night's, whatever the clock does."""

    def next_morning():
        return begun + timedelta(hours=10, seconds=trio.current_time())

    async with open_gateway(tariff_book=tariff_book_of(DAY_AND_NIGHT), now=next_morning) as gateway:
        async with gateway.charger("CP-1") as charger:

            def at(minute):
                return (begun + timedelta(minutes=minute)).isoformat()

            start = {"connectorId": 1, "idTag": "T", "meterStart": 0, "timestamp": at(0)}
            tx = (await charger.ask("StartTransaction", **start))["transactionId"]
            values = [
                {"timestamp": at(minute), "sampledValue": [{"value": str(minute * 100)}]}
                for minute in range(every, 360, every)
            ]
            await charger.ask("MeterValues", connectorId=1, transactionId=tx, meterValue=values)
            await charger.ask(
                "StopTransaction", transactionId=tx, meterStop=36_000, timestamp=at(360)
            )
        await gateway.settled()
        (settled,) = gateway.events(TransactionSettled)
    kwh = {line["unit_price"]: line["quantity"] for line in settled.receipt["lines"]}
    assert kwh == {"0.313": str(by_day * 6), "0.177": str(by_night * 6)}
    excl = by_day * 6 * Decimal("0.313") + by_night * 6 * Decimal("0.177")
    assert abs(Decimal(settled.receipt["total_excl_vat"]) - excl) <= Decimal("0.005")
    assert abs(Decimal(settled.receipt["total_incl_vat"]) - excl * Decimal("1.21")) <= Decimal(
        "0.005"
    )


def session_of(samples: int) -> tuple[Ledger, list[float], list[int]]:
    """A ledger after so many samples, the seconds of CPU that each took, and memory on the way."""
    ledger = Ledger(tariff_book_of(PER_KWH))
    ledger.post(CP.start("0"))
    took, sizes = [], []
    for n in range(1, samples + 1):
        event = CP.meter(n * 0.144, str(n), Sample("11000", measurand="Power.Active.Import"))
        began = time.process_time()
        facts = ledger.post(event)
        took.append(time.process_time() - began)
        assert facts[0].progress.energy_wh == n
        if n % 5_000 == 0:
            sizes.append(tracemalloc.get_traced_memory()[0])
    return ledger, took, sizes


@pytest.mark.real_time
def test_the_last_of_20_000_samples_costs_no_more_than_the_first():
    """HC-101: 48 h, one every 8.64 s; by the processor's clock."""
    ledger, took, _ = session_of(20_000)
    early, late = sorted(took[:2_000])[1_000], sorted(took[-2_000:])[1_000]
    assert late < 2 * early + 0.000_1
    (settled,) = ledger.post(CP.stop(2_880, "20000"))
    assert (settled.receipt["energy_wh"], settled.receipt["total_incl_vat"]) == ("20000", "6.00")


def test_a_sample_of_a_long_session_is_kept_in_a_few_hundred_bytes():
    """HC-101: what is kept of each is what a late one, or another end, is priced by."""
    tracemalloc.start()
    _, _, sizes = session_of(15_000)
    tracemalloc.stop()
    assert sizes[-1] - sizes[0] < 10_000 * 700


async def test_a_session_of_two_days_is_answered_to_its_end(gateway):
    """HC-101: the charge point has been offline for all of it, and now sends 20 000 readings."""
    async with gateway.charger("CP-1") as charger:
        start = {"connectorId": 1, "idTag": "T", "meterStart": 0, "timestamp": clock(-2_880)}
        tx = (await charger.ask("StartTransaction", **start))["transactionId"]
        for n in range(0, 20_000, 100):
            values = [sampled((n + i) * 0.144 - 2_880, str(n + i)) for i in range(1, 101)]
            about = {"connectorId": 1, "transactionId": tx, "meterValue": values}
            before = trio.current_time()
            assert await charger.ask("MeterValues", **about) == {}
            assert trio.current_time() - before < 0.1
        await charger.stop(tx, 20_000)
        await gateway.settled()
    (settled,) = gateway.events(TransactionSettled)
    assert (settled.receipt["energy_wh"], settled.receipt["total_incl_vat"]) == ("20000", "6.00")
