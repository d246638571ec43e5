"""The clock's judgement: which of a charge point's timestamps are believed, and why."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.charge_point_clock import (
    NEW_BACKLOG,
    ChargePointClock,
    first_absence,
    with_absence,
)
from gateway.domain.clock import AGREES, TimeSource, milliseconds
from gateway.domain.event_values import Reading, Sample
from gateway.domain.events import (
    ChargePointBooted,
    MeterSampled,
    TransactionStopped,
)
from gateway.journal.codec import dump, load

from .builders import UNSET, m, started, status

OWN, CORRECTED, RECEIPT = TimeSource.OWN, TimeSource.CORRECTED, TimeSource.RECEIPT


def test_a_retry_by_a_clock_that_is_ahead_is_one_over_a_boot():
    """The same stamp, corrected, is the same time; at the next power-up it is another."""
    ahead = timedelta(hours=2)
    clock = ChargePointClock(absences=first_absence(m(-60)))
    clock.judged(status(m(-1), m(-1) + ahead))
    first = attrs.evolve(clock.judged(started(m(0), m(0) + ahead)), transaction_id=1)
    clock.started(first)
    assert not clock.judged(started(m(0.5), m(0) + ahead)).new_transaction
    for minute, new in ((1, False), (60, True)):
        boot = ChargePointBooted(charge_point_id="CP", received_at=m(minute), vendor="V")
        clock.judged(boot)
        clock.judged(status(m(minute), m(1) + ahead))
        assert clock.judged(started(m(minute), m(0) + ahead)).new_transaction is new


def known_since(at: datetime) -> ChargePointClock:
    """A charge point that has been connected ever since."""
    return ChargePointClock(absences=with_absence((), at - timedelta(seconds=1), at))


@pytest.mark.parametrize(
    ("said", "source"),
    [
        (m(0), OWN),
        (m(0) - AGREES, OWN),
        (m(-14), OWN),  # it waited, or was repeated
        (m(-16), RECEIPT),  # it was connected then
        (m(-60 * 24 * 3), RECEIPT),
        (m(1), OWN),
        (m(1.1), RECEIPT),
        (None, RECEIPT),
        (datetime.max.replace(tzinfo=UTC), RECEIPT),
        (datetime.min.replace(tzinfo=UTC), RECEIPT),
    ],
)
def test_a_charge_point_that_was_connected_cannot_tell_of_long_ago(said, source):
    clock = known_since(m(0) - timedelta(days=9))
    assert clock.judged(started(m(0), said)).instant().source is source


def test_what_is_told_by_the_clock_of_a_start_that_was_not_believed_is_not_believed_either():
    """Else a start by our clock and a stop by its own would be 20 minutes nearer than they were."""
    clock = known_since(m(0) - timedelta(days=9))
    start = attrs.evolve(clock.judged(started(m(0), m(-20))), transaction_id=1)
    clock.started(start)
    reading = Reading(m(10), (Sample("1"),))
    sample = MeterSampled(
        charge_point_id="CP",
        received_at=m(30),
        timestamp=m(10),
        connector_id=1,
        transaction_id=1,
        readings=(reading,),
    )
    ((_, at, source),) = clock.judged(sample).timed_readings()
    assert (at, source) == (m(30), RECEIPT)
    for said, at in ((m(40), m(60)), (m(58), m(58))):  # its clock, or one that was set meanwhile
        stop = TransactionStopped(
            charge_point_id="CP",
            received_at=m(60),
            timestamp=said,
            transaction_id=1,
            meter_stop="1",
        )
        assert attrs.evolve(clock).judged(stop).at == at


def test_what_was_while_it_was_away_is_believed_and_nothing_else():
    clock = known_since(m(-60 * 24 * 30))
    clock.absences = with_absence(clock.absences, m(-600), m(-300))
    sources = [
        clock.judged(started(m(0), m(-minute))).instant().source
        for minute in (200, 300, 450, 600, 700)
    ]
    assert sources == [RECEIPT, OWN, OWN, OWN, RECEIPT]


def test_a_new_charge_point_may_bring_some_weeks_and_no_years():
    clock = ChargePointClock(absences=first_absence(m(0)))
    for said, source in ((m(0) - NEW_BACKLOG, OWN), (m(0) - 2 * NEW_BACKLOG, RECEIPT)):
        assert clock.judged(started(m(1), said)).instant().source is source


def test_readings_reach_back_to_the_start_of_their_transaction():
    clock = known_since(m(-60 * 24 * 9))
    start = started(m(-60 * 24 * 3), m(-60 * 24 * 3), transaction_id=7)
    clock.started(clock.judged(start))
    readings = tuple(Reading(m(-60 * 24 * day), (Sample("1"),)) for day in (4, 3, 2))
    stop = TransactionStopped(
        charge_point_id="CP",
        received_at=m(0),
        timestamp=m(0),
        transaction_id=7,
        meter_stop="1",
        readings=readings,
    )
    judged = clock.judged(stop)
    assert [timed.source for timed in judged.timed_readings()] == [RECEIPT, OWN, OWN]
    assert load(*dump(judged)) == judged


def test_an_untimed_start_is_repeated_until_its_id_is_known():
    clock = known_since(m(-60))
    said = UNSET[3]
    first = attrs.evolve(clock.judged(started(m(0), said)), transaction_id=7)
    clock.started(first)
    assert not clock.judged(started(m(1), said)).new_transaction
    clock.judged(MeterSampled(charge_point_id="CP", received_at=m(2), connector_id=1,
                              transaction_id=7))  # fmt: skip
    assert clock.judged(started(m(3), said)).new_transaction
    second = attrs.evolve(clock.judged(started(m(3), said)), transaction_id=8)
    clock.started(second)
    assert not clock.judged(started(m(4), said)).new_transaction
    clock.judged(ChargePointBooted(charge_point_id="CP", received_at=m(5)))
    assert clock.judged(started(m(6), said)).new_transaction


def test_one_old_stamp_is_no_offset_and_two_of_one_instant_are_none_either():
    clock = known_since(m(-60))
    for _ in range(3):  # HA #337: a status repeated with the time of its change
        clock.judged(status(m(0), m(-200)))
    judged = clock.judged(started(m(1), m(-199)))
    assert judged.instant().source is RECEIPT


def test_absences_are_bounded_and_those_that_touch_are_one():
    absences = first_absence(m(0))
    absences = with_absence(absences, m(1), m(2))
    assert len(absences) == 1
    for hour in range(1, 30):
        absences = with_absence(absences, m(60 * hour), m(60 * hour + 30))
    assert len(absences) == 8
    assert absences[-1] == (milliseconds(m(29 * 60)), milliseconds(m(29 * 60 + 30)))


@given(
    lags=st.lists(st.integers(-(10**9), 10**9), min_size=1, max_size=12),
    kinds=st.lists(st.sampled_from(["status", "start", "boot"]), min_size=12, max_size=12),
    away=st.integers(0, 10**7),
)
def test_nothing_is_ever_judged_to_be_later_than_its_receipt_or_before_all_absences(
    lags, kinds, away
):
    clock = ChargePointClock(absences=with_absence((), m(0) - timedelta(seconds=away), m(0)))
    earliest = m(0) - timedelta(seconds=away) - timedelta(minutes=16)
    for n, (lag, kind) in enumerate(zip(lags, kinds, strict=False)):
        received_at = m(n)
        said = received_at - timedelta(seconds=lag)
        if kind == "boot":
            clock.judged(ChargePointBooted(charge_point_id="CP", received_at=received_at))
            continue
        event = (status if kind == "status" else started)(received_at, said)
        at, source = clock.judged(event).instant()
        assert earliest <= at <= received_at + AGREES
        assert (source is OWN) == (at == said) or at == said


def test_a_charge_point_that_names_ever_new_connectors_costs_no_memory():
    clock = known_since(m(-60))
    for n in range(1, 1_000):
        start = attrs.evolve(started(m(n), m(n - 10)), connector_id=n, transaction_id=n)
        clock.started(clock.judged(start))
        clock.judged(
            TransactionStopped(
                charge_point_id="CP", received_at=m(n), timestamp=m(n), transaction_id=n,
                meter_stop="1",
            )
        )  # fmt: skip
    kept = [value for value in attrs.astuple(clock, recurse=False) if isinstance(value, dict)]
    assert kept
    assert all(len(each) <= 257 for each in kept), [len(each) for each in kept]
