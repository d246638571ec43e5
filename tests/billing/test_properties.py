"""What must hold for every session, however its messages come."""

from __future__ import annotations

from decimal import Decimal
from random import Random

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.billing.ledger import Ledger
from gateway.domain.event_values import Reading, Sample
from gateway.domain.events import MeterSampled, TransactionProgressed, TransactionSettled
from gateway.journal import codec

from .builders import (
    CP,
    LIVE,
    PER_KWH,
    TIME_AND_PARKING,
    ChargePoint,
    at,
    component,
    element,
    progress,
    tariff,
    tariff_book,
)

NIGHT = tariff(
    element(component("ENERGY", "0.37", "21"), max_power=Decimal(11)),
    element(component("ENERGY", "0.25", "19"), start_time="17:00", end_time="17:20"),
    element(component("TIME", "1.7", "21", 60), min_duration=900),
    element(component("ENERGY", "0.453", "19"), min_kwh=Decimal("3.5")),
    element(component("ENERGY", "0.4"), component("PARKING_TIME", "6", "21", 300)),
    min_price={"excl_vat": Decimal("0.5")},
)
CURRENT = tariff(
    element(component("TIME", "1"), max_current=16),
    element(component("TIME", "2"), component("ENERGY", "0.1"), min_current=16),
)
BOOKS = [
    tariff_book(PER_KWH),
    tariff_book(LIVE, post_stop_parking=True),
    tariff_book(TIME_AND_PARKING, idle_grace_s=120),
    tariff_book(NIGHT),
    tariff_book(NIGHT, idle_detection="power", idle_power_w=2000),
    tariff_book(CURRENT),
]

books = st.sampled_from(BOOKS)
registers = st.integers(0, 60_000)
rarely = st.sampled_from([False, False, False, True])
minutes = st.integers(0, 120)
statuses = st.sampled_from(
    ["Charging", "SuspendedEV", "SuspendedEVSE", "Faulted", "Finishing", "Available"]
)


@st.composite
def curves(draw, most=8):
    """(minute, register) that climb, as a good meter counts."""
    times = sorted(draw(st.lists(st.integers(1, 119), max_size=most, unique=True)))
    steps = draw(st.lists(st.integers(0, 9000), min_size=len(times), max_size=len(times)))
    value, found = 1000, []
    for time, step in zip(times, steps, strict=True):
        value += step
        found.append((time, value))
    return found


WRONG = {
    "right": lambda value, _: str(value),
    "low": lambda value, by: str(max(0, value - by)),
    "high": lambda value, by: str(value + by),
    "kWh": lambda value, _: str(Decimal(value) / 1000),
    "zero": lambda *_: "0",
}
kinds = st.sampled_from(["right", "right", *WRONG])


@st.composite
def unruly(draw, kinds=kinds):
    """meterStart, (minute, register) with runs of readings that are off, and meterStop: the meter
    itself counts well."""
    base = draw(st.sampled_from([0, 1, 1000, 25_000]))
    curve = draw(curves(most=10))
    read, value, left, kind = [], base, 0, "right"
    for time, register in curve:
        if not left:
            kind, left = draw(kinds), draw(st.integers(1, 4))
        value = register - 1000 + base
        read.append((time, WRONG[kind](value, draw(st.integers(1, 30_000)))))
        left -= 1
    return base, read, value + draw(st.sampled_from([0, 1, 2000]))


@st.composite
def unruly_messages(draw):
    base, read, stop = draw(unruly())
    missing = draw(st.sampled_from([False, False, False, True]))
    events = [CP.meter(time, value) for time, value in read]
    moved = draw(st.lists(st.integers(0, max(0, len(events) - 1)), max_size=2))
    for place in moved if events else ():
        events.append(events.pop(place))
    return [CP.start(str(base)), *events, CP.stop(120, None if missing else str(stop))]


@st.composite
def messages(draw):
    """Anything a charge point may send about one transaction, in any order, good or bad."""
    phase = st.sampled_from([None, None, None, "L1", "L2-N", "N"])
    location = st.sampled_from([None, None, "Outlet", "Inlet", "EV"])
    context = st.sampled_from([None, None, "Sample.Clock", "Transaction.Begin", "Transaction.End"])
    measurand = st.sampled_from(
        [None, None, None, "Energy.Active.Import.Interval", "Current.Import"]
    )
    value = st.one_of(registers.map(str), st.sampled_from(["", "NaN", "-1", "0.5", "17"]))
    sample = st.builds(
        Sample, value, context=context, phase=phase, location=location, measurand=measurand
    )
    meter = st.builds(
        lambda minute, samples: CP.meter(minute, *samples), minutes, st.lists(sample, max_size=3)
    )
    status = st.builds(CP.status, minutes, statuses)
    again = st.just(CP.start("1000", repeated=True))
    unplugged = st.builds(CP.unplugged, minutes)
    boot = st.builds(lambda minute, replaced: CP.boot(minute, replaced=replaced), minutes, rarely)
    any_message = st.one_of(meter, meter, meter, status, status, again, unplugged, boot)
    within = draw(st.lists(any_message, max_size=12))
    stop = CP.stop(draw(minutes), draw(st.one_of(registers.map(str), st.none())))
    after = draw(st.lists(st.one_of(meter, status, unplugged, st.just(stop)), max_size=3))
    start = CP.start(draw(st.sampled_from(["1000", "1000", "0", "50000", None])))
    return [start, *within, stop, *after]


sessions = st.one_of(messages(), unruly_messages())


def settled(facts):
    return [fact for fact in facts if isinstance(fact, TransactionSettled)]


def last_receipt(prices, events):
    """Where idle time counts on after the stop, the cable is out ten minutes later."""
    ledger = Ledger(prices)
    out = CP.status(130, "Available")
    facts = [fact for event in [*events, out] for fact in ledger.post(event)]
    return settled(facts)[-1].receipt


def good_session(curve, stop):
    readings = [Reading(at(time), (Sample(str(value)),)) for time, value in curve]
    return CP.start("1000"), readings, CP.stop(120, str(stop))


@given(books, curves(), st.integers(0, 5000), st.randoms(use_true_random=False))
def test_no_order_or_repetition_of_readings_changes_the_receipt(prices, curve, more, random):
    last = curve[-1][1] if curve else 1000
    start, readings, stop = good_session(curve, last + more)
    plainly = last_receipt(prices, [start, CP.readings(119, *readings), stop])
    shuffled = [reading for reading in readings for _ in range(random.choice((1, 1, 2, 3)))]
    random.shuffle(shuffled)
    pieces = split(shuffled, random)
    found = last_receipt(prices, [start, *(CP.readings(119, *piece) for piece in pieces), stop])
    assert without_order(found) == plainly


@given(books, unruly(), st.randoms(use_true_random=False))
def test_no_order_or_repetition_of_readings_that_are_off_changes_the_receipt(
    prices, session, random
):
    base, read, register = session
    start, stop = CP.start(str(base)), CP.stop(120, str(register))
    readings = [Reading(at(time), (Sample(value),)) for time, value in read]
    plainly = last_receipt(prices, [start, CP.readings(119, *readings), stop])
    in_order = [CP.readings(119, *piece) for piece in split(readings, random)]
    assert last_receipt(prices, [start, *in_order, stop]) == plainly
    shuffled = [reading for reading in readings for _ in range(random.choice((1, 1, 2, 3)))]
    random.shuffle(shuffled)
    pieces = split(shuffled, random)
    found = last_receipt(prices, [start, *(CP.readings(119, *piece) for piece in pieces), stop])
    assert without_order(found) == plainly


def split(readings, random: Random):
    while readings:
        size = random.randint(1, len(readings))
        yield readings[:size]
        readings = readings[size:]


def without_order(found):
    return found | {"flags": [flag for flag in found["flags"] if flag != "samples_reordered"]}


@given(books, sessions)
def test_the_total_is_the_sum_of_the_lines(prices, events):
    found = last_receipt(prices, events)
    for side in ("excl", "incl"):
        lines = sum(Decimal(line[f"cost_{side}_vat"]) for line in found["lines"])
        total = Decimal(found[f"total_{side}_vat"])
        assert abs(total - lines) <= Decimal("0.005") + len(found["lines"]) * Decimal("0.00005")


@given(books, sessions)
def test_no_session_without_a_flag_leaves_its_registers(prices, events):
    found = last_receipt(prices, events)
    energy = Decimal(found["energy_wh"])
    assert energy >= 0
    if not set(found["flags"]) - {"min_price_applied", "max_price_applied"}:
        assert energy <= Decimal(found["meter_stop_wh"]) - Decimal(found["meter_start_wh"])


@settings(max_examples=300)
@given(sessions)
def test_more_than_the_registers_differ_is_never_billed_without_review(events):
    """Amounts are let pass where both registers say nothing at all, for then there is no register
    (MTR-08)."""
    found = last_receipt(BOOKS[0], events)
    start, stop = found["meter_start_wh"], found["meter_stop_wh"]
    if start is None or stop is None or found["needs_review"]:
        return
    metered = Decimal(stop) - Decimal(start)
    if metered < 0 or (metered == 0 and "energy_from_intervals" in found["flags"]):
        return
    assert Decimal(found["energy_wh"]) <= metered


@given(books, unruly(st.sampled_from(["right", "low", "kWh", "zero"])))
def test_once_the_register_is_back_a_dip_has_cost_nothing(prices, session):
    """Neither while it runs nor at the end: as if the low readings had never been.  (Unless the
    reading before them is taken for a spike, because they are still above the one before it.)"""
    base, read, register = session
    value, good = base, []
    for time, text in read:
        if Decimal(text) >= value:
            value = Decimal(text)
            good.append((time, text))
    running, ended = [], []
    for readings in (read, good):
        ledger = Ledger(prices)
        events = [CP.start(str(base)), *(CP.meter(time, text) for time, text in readings)]
        for event in events:
            ledger.post(event)
        end = CP.meter(119.5, str(register))
        running.append(progress(ledger.post(end)).progress)
        ended.append(last_receipt(prices, [*events, end, CP.stop(120, str(register))]))
    assert ended[0]["energy_wh"] == ended[1]["energy_wh"]
    if "spike_ignored" in ended[0]["flags"]:
        return
    assert ended[0]["lines"] == ended[1]["lines"]
    for name in ("cost_total", "cost_energy", "cost_time", "cost_idle", "cost_fixed"):
        assert getattr(running[0], name) == getattr(running[1], name), name


@given(books, curves(), st.lists(st.tuples(st.integers(0, 120), statuses), max_size=4))
def test_the_running_cost_at_the_stop_is_the_receipt(prices, curve, idle):
    """With a reading at the stop that says what meterStop says."""
    events = [CP.meter(time, str(value)) for time, value in curve]
    events += [CP.status(time, status) for time, status in idle if status != "Available"]
    events.sort(key=lambda event: event.timestamp)
    last = curve[-1][1] if curve else 1000
    ledger = Ledger(prices)
    for event in [CP.start("1000"), *events]:
        ledger.post(event)
    (running,) = ledger.post(CP.meter(120, str(last)))
    facts = ledger.post(CP.stop(120, str(last)))
    final = facts[-1].progress
    for name in ("cost_total", "cost_energy", "cost_time", "cost_idle", "cost_fixed"):
        assert getattr(running.progress, name) == getattr(final, name), name
    assert running.progress.energy_wh == final.energy_wh
    assert running.progress.idle_s == final.idle_s


@given(books, sessions, st.data())
def test_what_is_priced_step_by_step_is_priced_as_from_scratch(prices, events, data):
    """A ledger that is restored before each message has no priced prefix to go on from."""
    cut = data.draw(st.integers(0, len(events)))
    going, journal = Ledger(prices), []
    for event in events[:cut]:
        journal += [event, *going.post(event)]
    for event in events[cut:]:
        fresh = Ledger(prices)
        for past in journal:
            fresh.restore(past)
        facts = going.post(event)
        assert fresh.post(event) == facts
        journal += [event, *facts]


@given(sessions, books, books)
def test_a_restart_with_other_prices_keeps_the_terms_of_open_sessions(events, prices, others):
    ledger, journal = Ledger(prices), []
    half = len(events) // 2
    for event in events[:half]:
        journal += [event, *ledger.post(event)]
    reborn = Ledger(others)
    for past in journal:
        kind, text = codec.dump(past)
        reborn.restore(codec.load(kind, text))
    assert reborn.open_transactions() == ledger.open_transactions()
    for event in events[half:] if half else ():
        assert reborn.post(event) == ledger.post(event)


@given(books, sessions)
def test_an_adopted_transaction_goes_on_as_if_it_had_never_been_away(prices, events):
    half = max(1, len(events) // 2)
    ledger, journal = Ledger(prices), []
    for event in events[:half]:
        journal += [event, *ledger.post(event)]
    scratch, heir = Ledger(prices), Ledger(prices)
    for past in journal:
        scratch.restore(past)
    heir.adopt(scratch, 1)
    for event in events[half:]:
        assert heir.post(event) == ledger.post(event)


@given(books, sessions)
def test_energy_never_falls_and_money_is_never_negative(prices, events):
    ledger = Ledger(prices)
    most = Decimal(0)
    for event in events:
        for fact in ledger.post(event):
            if isinstance(fact, TransactionProgressed):
                assert fact.progress.energy_wh >= most
                most = fact.progress.energy_wh
            told = getattr(fact, "progress", None)
            assert told is None or told.cost_total >= 0
            assert told is None or told.duration_s >= told.charging_s + told.idle_s - 1


@settings(max_examples=20)
@given(st.lists(st.integers(1, 4), min_size=5, max_size=40))
def test_sessions_side_by_side_do_not_know_of_each_other(turns):
    together = Ledger(BOOKS[1])
    alone = {number: Ledger(BOOKS[1]) for number in range(1, 5)}
    points = {number: ChargePoint(f"CP-{number}", 1, number) for number in alone}
    for number, point in points.items():
        assert together.post(point.start("0")) == alone[number].post(point.start("0"))
    for minute, number in enumerate(turns, 1):
        event = points[number].meter(minute, str(minute * 100))
        assert together.post(event) == alone[number].post(event)


@pytest.mark.parametrize("prices", BOOKS)
def test_a_long_session_is_not_priced_anew_with_each_message(prices, monkeypatch):
    """By counting: no message may look at more than a few earlier ones."""
    from gateway.billing import refitting

    ledger = Ledger(prices)
    ledger.post(CP.start("0"))
    for minute in range(1, 200):
        ledger.post(meter_with_current(minute))

    def forbidden(*args):
        raise AssertionError("the whole history was read again")

    monkeypatch.setattr(refitting, "entries", forbidden)
    for minute in range(200, 220):
        ledger.post(meter_with_current(minute))


def meter_with_current(minute: int) -> MeterSampled:
    current = Sample(str(minute % 32), measurand="Current.Import", unit="A")
    event = CP.meter(minute, str(minute * 100), current)
    return attrs.evolve(event, received_at=at(minute))
