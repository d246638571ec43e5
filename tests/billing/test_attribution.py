"""Which session a message belongs to, and what is kept as an orphan."""

from __future__ import annotations

from datetime import timedelta

import attrs
import pytest

from gateway.billing.ledger import Ledger
from gateway.domain.event_values import Reading, Sample
from gateway.domain.events import (
    MessageOrphaned,
)

from .builders import (
    CP,
    PER_KWH,
    ChargePoint,
    at,
    given_up,
    kinds,
    tariff_book,
)

BOOK = tariff_book(PER_KWH)

NEXT = ChargePoint(transaction_id=2)

OTHER = ChargePoint("CP-2", transaction_id=7)


@pytest.mark.parametrize("transaction_id", [-1, 0, 5, 2**63 - 1])
def test_messages_of_no_known_transaction_are_kept_for_people(transaction_id):
    ledger = Ledger(BOOK)
    (sampled,) = ledger.post(CP.meter(10, "2000", transaction_id=transaction_id))
    (stopped,) = ledger.post(CP.stop(10, "2000", transaction_id=transaction_id))
    assert kinds((sampled, stopped)) == [MessageOrphaned, MessageOrphaned]
    assert (sampled.message, stopped.message) == ("MeterValues", "StopTransaction")
    assert '"meterStop": "2000"' in stopped.content
    assert ledger.open_transactions() == []


def test_a_stop_without_a_transaction_id_is_an_orphan():
    assert kinds(Ledger(BOOK).post(CP.stop(10, "2000", transaction_id=None))) == [MessageOrphaned]


def test_another_charge_point_cannot_speak_for_a_transaction():
    ledger = Ledger(BOOK)
    ledger.post(CP.start("1000"))
    assert kinds(ledger.post(OTHER.stop(10, "9000", transaction_id=1))) == [MessageOrphaned]
    assert len(ledger.open_transactions()) == 1


def test_readings_without_a_transaction_are_of_the_one_open_on_their_connector():
    ledger = Ledger(BOOK)
    ledger.post(CP.start("1000"))
    (fact,) = ledger.post(CP.meter(10, "2000", transaction_id=None))
    assert fact.progress.energy_wh == 1000
    assert ledger.post(CP.meter(10, "9000", transaction_id=None, connector_id=2)) == ()
    assert ledger.post(CP.meter(10, "9000", transaction_id=None, connector_id=0)) == ()


def test_readings_without_a_transaction_go_by_their_time():
    """Taken while the old one was open, delivered when the next one is."""
    ledger = Ledger(BOOK)
    for event in (CP.start("1000"), CP.stop(30, "2000"), NEXT.start("2000", minutes=40)):
        ledger.post(event)
    old, new = Reading(at(20), (Sample("1500"),)), Reading(at(50), (Sample("2500"),))
    (fact,) = ledger.post(CP.readings(50, old, new, transaction_id=None))
    assert (fact.transaction_id, fact.progress.energy_wh) == (2, 500)
    assert ledger.session(1).flags == {"late_samples"}


@pytest.mark.parametrize("named", [0, None, 1])
def test_a_session_whose_messages_name_another_is_billed_and_reviewed(named):
    """0 for every transaction, or the id of the one before (TKT, Delta)."""
    ledger = Ledger(BOOK)
    ledger.post(CP.start("0"))
    ledger.post(CP.stop(10, "1000"))
    ledger.post(attrs.evolve(CP.start("1000", 20), transaction_id=2))
    ledger.post(attrs.evolve(CP.meter(30, "1500"), transaction_id=named))
    (settled,) = ledger.post(attrs.evolve(CP.stop(40, "3000"), transaction_id=named))
    assert (settled.transaction_id, settled.receipt["energy_wh"]) == (2, "2000")
    wanted = {"needs_review", "transaction_id_mismatch"}
    assert wanted <= set(settled.receipt["flags"])
    assert settled.receipt["duration_s"] == 1_200


def test_an_old_id_may_be_that_of_another_connector():
    ledger = Ledger(BOOK)
    ledger.post(attrs.evolve(CP.start("0"), connector_id=2))
    ledger.post(CP.stop(10, "1000"))
    ledger.post(attrs.evolve(CP.start("5000", 20), transaction_id=2))
    ledger.post(CP.meter(30, "5500"))
    (settled,) = ledger.post(CP.stop(40, "7000"))
    assert (settled.transaction_id, settled.receipt["energy_wh"]) == (2, "2000")
    assert {"needs_review", "transaction_id_mismatch"} <= set(settled.receipt["flags"])


def test_a_late_stop_of_another_connector_is_its_own():
    ledger = Ledger(BOOK)
    ledger.post(attrs.evolve(CP.start("0"), connector_id=2))
    ledger.post(attrs.evolve(given_up(1, at(15)), connector_id=2))
    ledger.post(attrs.evolve(CP.start("5000", 20), transaction_id=2))
    (settled,) = ledger.post(CP.stop(40, "7000"))
    assert (settled.transaction_id, settled.receipt["energy_wh"]) == (1, "7000")
    assert [held.transaction_id for held in ledger.open_transactions()] == [2]


def test_its_own_stop_takes_the_place_of_one_that_named_another():
    ledger = Ledger(BOOK)
    ledger.post(CP.start("0"))
    ledger.post(attrs.evolve(CP.stop(10, "1000"), transaction_id=0))
    (settled,) = ledger.post(CP.stop(20, "2000"))
    assert (settled.version, settled.receipt["energy_wh"]) == (2, "2000")
    assert ledger.post(CP.stop(20, "2000")) == ()


@pytest.mark.parametrize("named", [4711, -1, 2**63 - 1])
def test_an_id_that_is_nobodys_and_not_0_stays_an_orphan(named):
    ledger = Ledger(BOOK)
    ledger.post(CP.start("0"))
    (orphan,) = ledger.post(attrs.evolve(CP.stop(10, "1000"), transaction_id=named))
    assert orphan.message == "StopTransaction"
    assert len(ledger.open_transactions()) == 1


def test_0_is_nobodys_where_two_sessions_are_open():
    ledger = Ledger(BOOK)
    ledger.post(CP.start("0"))
    ledger.post(attrs.evolve(CP.start("0"), transaction_id=2, connector_id=2))
    (orphan,) = ledger.post(attrs.evolve(CP.stop(10, "1000"), transaction_id=0))
    assert orphan.message == "StopTransaction"
    ledger.post(attrs.evolve(CP.meter(5, "700"), transaction_id=0, connector_id=2))
    assert len(ledger.open_transactions()) == 2
    (settled,) = ledger.post(attrs.evolve(CP.stop(10, "1000"), transaction_id=2))
    assert "transaction_id_mismatch" in settled.receipt["flags"]


def test_what_names_an_ended_transaction_and_is_of_its_time_is_its_own():
    ledger = Ledger(BOOK)
    ledger.post(CP.start("0"))
    ledger.post(CP.stop(10, "1000"))
    ledger.post(attrs.evolve(CP.start("1000", 20), transaction_id=2))
    ledger.post(CP.meter(5, "500"))
    assert ledger.post(CP.stop(10, "1000")) == ()
    (settled,) = ledger.post(attrs.evolve(CP.stop(40, "3000"), transaction_id=2))
    assert settled.receipt["flags"] == []


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("pause_s", [0, 5, 45, 300])
def test_a_repeated_stop_without_an_id_ends_no_session_that_began_since(pause_s, restarted):
    """It comes again after the next start, for its answer was lost."""
    ledger = Ledger(BOOK)
    ledger.post(CP.start("0"))
    stop = attrs.evolve(CP.stop(10, "1000"), transaction_id=0)
    ledger.post(stop)
    start = attrs.evolve(CP.start("1000", 10 + pause_s / 60), transaction_id=2)
    if restarted:  # only what is open is remembered
        ledger = Ledger(BOOK)
        stop = attrs.evolve(stop, timestamp=at(10) - timedelta(seconds=1))
    ledger.post(start)
    ledger.post(attrs.evolve(stop, received_at=at(20)))
    assert [tx.transaction_id for tx in ledger.open_transactions()] == [2]
    (settled,) = ledger.post(attrs.evolve(CP.stop(40, "3000"), transaction_id=2))
    assert (settled.receipt["energy_wh"], settled.receipt["flags"]) == ("2000", [])
