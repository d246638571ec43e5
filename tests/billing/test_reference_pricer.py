"""The product agrees with an implementation that has no idea of how it works."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import accumulate

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.billing.ledger import Ledger
from gateway.domain.event_values import Reading, Sample
from gateway.domain.events import (
    ConnectorStatusChanged,
    MeterSampled,
    TransactionStarted,
    TransactionStopped,
)

from . import reference_pricer
from .builders import ZONE, tariff_book

# Starts a few minutes before something happens in Amsterdam: 17:00, midnight, both jumps of
# the clock, and the end of a month.
STARTS = [
    datetime(2026, 1, 14, 15, 56, tzinfo=UTC),
    datetime(2026, 1, 14, 22, 57, tzinfo=UTC),
    datetime(2026, 3, 29, 0, 55, tzinfo=UTC),
    datetime(2026, 10, 25, 0, 58, tzinfo=UTC),
    datetime(2026, 7, 31, 21, 56, tzinfo=UTC),
]
clocks = st.sampled_from(
    ["00:00", "02:00", "02:30", "03:00", "16:58", "17:00", "17:02", "23:59", "00:01"]
)
dates = st.sampled_from(["2026-01-14", "2026-01-15", "2026-03-29", "2026-10-25", "2026-08-01"])
seconds = st.integers(0, 200)
kwh = st.integers(0, 600).map(lambda n: Decimal(n) * 2 / 1000)  # 2 Wh: met by every rate
restrictions = st.fixed_dictionaries(
    {},
    optional={
        "start_time": clocks,
        "end_time": clocks,
        "start_date": dates,
        "end_date": dates,
        "day_of_week": st.lists(
            st.sampled_from(reference_pricer.DAYS), min_size=1, max_size=4, unique=True
        ),
        "min_duration": seconds,
        "max_duration": seconds,
        "min_kwh": kwh,
        "max_kwh": kwh,
        "min_power": st.sampled_from([Decimal("7.2"), 10]),
        "max_power": st.sampled_from([Decimal("7.2"), 10]),
        "min_current": st.sampled_from([10, 16]),
        "max_current": st.sampled_from([10, 16]),
    },
)
components = st.lists(
    st.fixed_dictionaries(
        {
            "type": st.sampled_from(["ENERGY", "TIME", "PARKING_TIME", "FLAT"]),
            "price": st.integers(0, 5000).map(lambda n: Decimal(n) / 100),
            "step_size": st.sampled_from([0, 1, 1, 7, 60, 300]),
        },
        optional={"vat": st.sampled_from([Decimal(0), Decimal("9.5"), Decimal(21)])},
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda component: component["type"],
)
elements = st.fixed_dictionaries(
    {"price_components": components}, optional={"restrictions": restrictions}
)
amounts = st.integers(0, 900).map(lambda n: Decimal(n) / 100)
least = st.one_of(
    st.fixed_dictionaries({"excl_vat": amounts}, optional={"incl_vat": amounts}),
    st.fixed_dictionaries({"incl_vat": amounts}),
)
tariffs = st.fixed_dictionaries(
    {
        "id": st.just("T"),
        "currency": st.sampled_from(["EUR", "EUR", "JPY", "KWD"]),
        "elements": st.lists(elements, min_size=1, max_size=4),
    },
    optional={
        "tax_included": st.sampled_from(["YES", "NO", "N/A"]),
        "min_price": least,
        "max_price": least,
    },
).filter(lambda tariff: ordered(tariff.get("min_price", {}), tariff.get("max_price", {})))
intervals = st.lists(
    st.tuples(st.integers(1, 200), st.sampled_from([0, 2, 4]), st.sampled_from([None, 6, 10, 32])),
    min_size=1,
    max_size=4,
)  # seconds, Wh a second, and A sampled at the beginning
words = ["Charging", "SuspendedEV", "SuspendedEVSE", "Faulted", "Finishing"]
statuses = st.lists(st.tuples(st.integers(0, 500), st.sampled_from(words)), max_size=4)
kinds = st.sampled_from(["TIME", "FREE", "PARKING_TIME"])
policies = st.fixed_dictionaries(
    {
        "idle_grace_s": st.sampled_from([0, 0, 30]),
        "idle_detection": st.sampled_from(["status", "status", "power"]),
        "idle_power_w": st.just(100),
        "post_stop_parking": st.booleans(),
    },
    optional={
        "suspended_evse": kinds,
        "faulted": kinds,
        "min_billable_wh": st.sampled_from([1, 300]),
        "rounding": st.just("HALF_EVEN"),
    },
)


def ordered(low, high):
    """A least price above the greatest is a fault of the file."""
    return all(low[side] <= high[side] for side in low.keys() & high.keys())


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(tariffs, st.sampled_from(STARTS), intervals, statuses, policies, st.integers(0, 300))
def test_any_tariff_gives_the_same_price_half_a_second_at_a_time(
    tariff, start, pieces, changes, policy, more
):
    found, scene = receipt_and_gateway(tariff, start, pieces, changes, policy, more)
    points, changed, currents, left = scene
    expected = reference_pricer.price(
        tariff, ZONE, points, changed, currents=currents, left=left, **policy
    )
    assert (Decimal(found["total_excl_vat"]), Decimal(found["total_incl_vat"])) == expected


def receipt_and_gateway(tariff, start, pieces, changes, policy, more):
    """The receipt of a session, and the session as `naive.price` takes it."""
    times = list(accumulate((length for length, *_ in pieces), initial=0))
    energies = accumulate((length * rate for length, rate, _ in pieces), initial=0)
    points = [
        (start + timedelta(seconds=time), energy)
        for time, energy in zip(times, energies, strict=True)
    ]
    currents = [
        (start + timedelta(seconds=time), amperes)
        for time, (*_, amperes) in zip(times, pieces, strict=False)
        if amperes is not None
    ]
    changed = sorted(
        ((start + timedelta(seconds=second), status) for second, status in changes),
        key=lambda change: change[0],
    )
    stop = points[-1][0]
    left = stop + timedelta(seconds=more) if policy["post_stop_parking"] else None
    changed = [change for change in changed if change[0] <= (left or stop)]

    ledger = Ledger(tariff_book(tariff, **policy))
    about = {"charge_point_id": "CP-1", "received_at": left or stop}
    ledger.post(
        TransactionStarted(
            **about,
            timestamp=start,
            connector_id=1,
            id_tag="04",
            meter_start="1000",
            transaction_id=1,
        )
    )
    for moment, status in changed:
        ledger.post(
            ConnectorStatusChanged(**about, timestamp=moment, connector_id=1, status=status)
        )
    for moment, amperes in currents:
        ledger.post(meter(about, moment, Sample(str(amperes), measurand="Current.Import")))
    for moment, energy in points[1:]:
        ledger.post(meter(about, moment, Sample(str(1000 + energy))))
    facts = ledger.post(
        TransactionStopped(
            **about, timestamp=stop, transaction_id=1, meter_stop=str(1000 + points[-1][1])
        )
    )
    if left is not None:
        facts = ledger.post(
            ConnectorStatusChanged(**about, timestamp=left, connector_id=1, status="Available")
        )
    (settled,) = facts
    return settled.receipt, (points, changed, currents, left)


def meter(about, moment, sample):
    reading = Reading(moment, (sample,))
    return MeterSampled(**about, connector_id=1, transaction_id=1, readings=(reading,))
