"""The product agrees with an implementation that has no idea of how it works."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import accumulate

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.domain.accounting import Ledger
from gateway.domain.events import (
    ConnectorStatusChanged,
    MeterSampled,
    Reading,
    Sample,
    TransactionStarted,
    TransactionStopped,
)

from . import naive
from .scenes import ZONE, book

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
        "day_of_week": st.lists(st.sampled_from(naive.DAYS), min_size=1, max_size=4, unique=True),
        "min_duration": seconds,
        "max_duration": seconds,
        "min_kwh": kwh,
        "max_kwh": kwh,
        "min_power": st.sampled_from([Decimal("7.2"), 10]),
        "max_power": st.sampled_from([Decimal("7.2"), 10]),
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
tariffs = st.lists(elements, min_size=1, max_size=4).map(
    lambda found: {"id": "T", "currency": "EUR", "elements": found}
)
intervals = st.lists(
    st.tuples(st.integers(1, 200), st.sampled_from([0, 2, 4])), min_size=1, max_size=4
)  # seconds, and Wh a second
statuses = st.lists(
    st.tuples(st.integers(0, 500), st.sampled_from(["Charging", "SuspendedEV"])), max_size=3
)


@settings(max_examples=150)
@given(tariffs, st.sampled_from(STARTS), intervals, statuses, st.sampled_from([0, 0, 30]))
def test_any_tariff_gives_the_same_price_half_a_second_at_a_time(
    tariff, start, pieces, changes, grace_s
):
    times = accumulate((length for length, _ in pieces), initial=0)
    energies = accumulate((length * rate for length, rate in pieces), initial=0)
    points = [
        (start + timedelta(seconds=time), energy)
        for time, energy in zip(times, energies, strict=True)
    ]
    changed = sorted(
        ((start + timedelta(seconds=second), status) for second, status in changes),
        key=lambda change: change[0],
    )
    stop = points[-1][0]
    changed = [change for change in changed if change[0] <= stop]

    ledger = Ledger(book(tariff, idle_grace_s=grace_s))
    about = {"charge_point_id": "CP-1", "received_at": stop}
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
    for moment, energy in points[1:]:
        reading = Reading(moment, (Sample(str(1000 + energy)),))
        ledger.post(MeterSampled(**about, connector_id=1, transaction_id=1, readings=(reading,)))
    (settled,) = ledger.post(
        TransactionStopped(
            **about, timestamp=stop, transaction_id=1, meter_stop=str(1000 + points[-1][1])
        )
    )
    found = settled.receipt
    expected = naive.price(tariff, ZONE, points, changed, grace_s=grace_s)
    assert (Decimal(found["total_excl_vat"]), Decimal(found["total_incl_vat"])) == expected
