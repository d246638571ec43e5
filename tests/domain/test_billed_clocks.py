"""Odd clocks: what is billed, by whichever of a charge point's timestamps can be believed."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from gateway.cli.replay import replay

from .builders import EIGHT, UNSET, m

TARIFF = {
    "id": "T",
    "currency": "EUR",
    "elements": [
        {
            "price_components": [
                {"type": "ENERGY", "price": Decimal("0.5"), "step_size": 1},
                {"type": "PARKING_TIME", "price": Decimal(6), "step_size": 1},
                {"type": "TIME", "price": Decimal(1), "step_size": 1},
            ]
        }
    ],
}


def text(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


class Frames:
    """What a charge point sends: each with when it is received, and what it says of its time."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self._tx = 0

    def call(self, received_at: datetime, action: str, payload: dict[str, Any]) -> None:
        name = f"m{len(self.events)}"
        self.events.append(
            {"at": text(received_at), "dir": "CP>CS", "frame": [2, name, action, payload]}
        )

    def start(self, received_at: datetime, said: datetime, meter: int = 1_000, connector: int = 1):
        payload = {"connectorId": connector, "idTag": "T", "meterStart": meter}
        self.call(received_at, "StartTransaction", payload | {"timestamp": text(said)})
        self._tx += 1
        answer = {"transactionId": self._tx, "idTagInfo": {"status": "Accepted"}}
        frame = [3, self.events[-1]["frame"][1], answer]
        self.events.append({"at": text(received_at), "dir": "CS>CP", "frame": frame})

    def sample(self, received_at: datetime, said: datetime, wh: int) -> None:
        value = {"timestamp": text(said), "sampledValue": [{"value": str(wh)}]}
        payload = {"connectorId": 1, "transactionId": self._tx, "meterValue": [value]}
        self.call(received_at, "MeterValues", payload)

    def stop(self, received_at: datetime, said: datetime, wh: int) -> None:
        payload = {"transactionId": self._tx, "meterStop": wh, "timestamp": text(said)}
        self.call(received_at, "StopTransaction", payload)

    def status(self, received_at: datetime, said: datetime, status: str) -> None:
        payload = {"connectorId": 1, "status": status, "errorCode": "NoError"}
        self.call(received_at, "StatusNotification", payload | {"timestamp": text(said)})

    def boot(self, received_at: datetime) -> None:
        self.call(
            received_at, "BootNotification", {"chargePointVendor": "V", "chargePointModel": "M"}
        )

    def sessions(self) -> list[dict[str, Any]]:
        return replay({"tz": "UTC", "tariff": TARIFF, "events": self.events})["sessions"]

    def session(self) -> dict[str, Any]:
        (session,) = self.sessions()
        return session


def seen(session: dict[str, Any]) -> tuple[int, int, int, bool]:
    return (
        int(session["energy_wh"]),
        int(session["duration_s"]),
        int(session["idle_s"]),
        "needs_review" in session["flags"],
    )


@pytest.mark.parametrize("said", UNSET, ids=str)
def test_a_start_of_a_clock_that_was_never_set_counts_from_its_receipt(said):
    frames = Frames()
    frames.start(m(0), said)
    frames.boot(m(10))
    frames.sample(m(30), m(30), 3_000)
    frames.stop(m(60), m(60), 5_000)
    assert seen(frames.session()) == (4_000, 3_600, 0, True)
    assert "timestamp_from_receipt" in frames.session()["flags"]
    assert frames.session()["total_excl_vat"] == "3.00"


@pytest.mark.parametrize("ahead", [timedelta(minutes=2), timedelta(hours=2), timedelta(hours=20),
                                   timedelta(days=3_000)], ids=str)  # fmt: skip
def test_time_that_has_not_happened_is_not_billed(ahead):
    frames = Frames()
    frames.start(m(0), m(0))
    frames.sample(m(30), m(30), 3_000)
    frames.status(m(50), m(50), "SuspendedEV")
    frames.stop(m(60), m(60) + ahead, 5_000)
    assert seen(frames.session()) == (4_000, 3_600, 600, True)


@pytest.mark.parametrize("said", [*UNSET, m(-300), m(-61)], ids=str)
def test_a_status_told_in_the_session_counts_from_when_it_was_told(said):
    frames = Frames()
    frames.boot(m(-1))
    frames.start(m(0), m(0))
    frames.status(m(20), said, "SuspendedEV")
    frames.status(m(25), m(25), "Charging")
    frames.sample(m(30), m(30), 3_000)
    frames.stop(m(60), m(60), 5_000)
    assert seen(frames.session()) == (4_000, 3_600, 300, False)


@pytest.mark.parametrize("said", [*UNSET, m(-240), m(-11)], ids=str)
def test_a_stop_from_before_its_start_makes_no_good_register_implausible(said):
    frames = Frames()
    frames.start(m(0), m(0))
    frames.sample(m(30), m(30), 3_000)
    frames.stop(m(60), said, 5_000)
    assert seen(frames.session()) == (4_000, 3_600, 0, True)


@pytest.mark.parametrize("said", [m(0), m(5), m(31)], ids=str)
def test_a_stop_from_before_a_reading_that_came_first_counts_from_its_receipt(said):
    frames = Frames()
    frames.start(m(0), m(0))
    frames.sample(m(30), m(30), 8_000)
    frames.sample(m(55), m(55), 14_000)
    frames.stop(m(60), said, 15_000)
    assert seen(frames.session()) == (14_000, 3_600, 0, True)


@pytest.mark.parametrize("said", [m(-0.5), m(0), m(0.5)], ids=str)
def test_a_stop_at_its_start_makes_no_good_register_implausible(said):
    frames = Frames()
    frames.start(m(0), m(0))
    frames.stop(m(60), said, 15_000)
    assert seen(frames.session()) == (14_000, 3_600, 0, True)


def test_a_stop_within_seconds_of_its_last_reading_or_of_its_start_is_as_it_says():
    frames = Frames()
    frames.start(m(0), m(0))
    frames.sample(m(30), m(30), 5_000)
    frames.stop(m(31.5), m(29.5), 5_000)
    frames.boot(m(600))
    frames.start(m(601), m(300), 5_000)
    frames.stop(m(601), m(300.5), 5_100)
    assert [seen(session) for session in frames.sessions()] == [
        (4_000, 1_770, 0, False),
        (100, 30, 0, False),
    ]


def test_power_ups_of_one_stamp_are_sessions_of_their_own():
    """Each begins with the same time, for the clock begins anew."""
    frames = Frames()
    for n in range(3):
        begun = 1_000 + 4_000 * n
        frames.boot(m(120 * n))
        frames.start(m(120 * n + 1), UNSET[3], begun)
        frames.stop(m(120 * n + 61), UNSET[3] + timedelta(hours=1), begun + 4_000)
    assert [seen(session) for session in frames.sessions()] == [(4_000, 3_600, 0, True)] * 3


@pytest.mark.parametrize("age", [timedelta(hours=5), timedelta(days=2), timedelta(weeks=4)])
@pytest.mark.parametrize("live_first", [True, False])
def test_an_offline_queue_keeps_its_own_times(age, live_first):
    """Charge points boot and tell their status first, and then what was hours or weeks ago."""
    frames = Frames()
    now = EIGHT + age
    if live_first:
        frames.boot(now)
        frames.status(now, now, "Available")
    frames.start(now + timedelta(seconds=2), m(0))
    frames.sample(now + timedelta(seconds=3), m(30), 3_000)
    frames.stop(now + timedelta(seconds=4), m(60), 5_000)
    frames.start(now + timedelta(seconds=5), m(70), 5_000)
    frames.stop(now + timedelta(seconds=6), m(130), 6_000)
    assert [seen(session) for session in frames.sessions()] == [
        (4_000, 3_600, 0, False),
        (1_000, 3_600, 0, False),
    ]


def test_a_queue_of_a_charge_point_that_was_away_between_live_sessions_keeps_its_times():
    frames = Frames()
    frames.start(m(0), m(0))
    frames.stop(m(60), m(60), 5_000)
    back = EIGHT + timedelta(days=9)
    frames.boot(back)
    frames.status(back, back, "Available")
    frames.start(back, EIGHT + timedelta(days=4), 5_000)
    frames.stop(back, EIGHT + timedelta(days=4, hours=1), 9_000)
    assert [seen(session) for session in frames.sessions()] == [(4_000, 3_600, 0, False)] * 2


def test_a_start_from_before_the_stop_before_it_counts_from_its_receipt():
    frames = Frames()
    frames.start(m(0), m(0))
    frames.stop(m(60), m(60), 5_000)
    frames.start(m(90), m(30), 5_000)
    frames.stop(m(120), m(120), 6_000)
    _, second = frames.sessions()
    assert seen(second) == (1_000, 1_800, 0, True)


def test_1970_out_of_an_offline_queue_bills_the_register_and_no_time():
    frames = Frames()
    begun = UNSET[0]
    frames.boot(m(0))
    frames.status(m(0), m(0), "Available")
    frames.start(m(1), begun)
    frames.sample(m(1), begun + timedelta(minutes=30), 3_000)
    frames.stop(m(1), begun + timedelta(hours=1), 5_000)
    assert seen(frames.session()) == (4_000, 0, 0, True)


@pytest.mark.parametrize("hours", [-8, -2, 2, 11])
def test_a_steady_offset_is_corrected_and_needs_nobody(hours):
    """Local time with a Z behind it.  What is ahead shows at once, what is behind at the second."""
    frames = Frames()
    off = timedelta(hours=hours)
    frames.status(m(-20), m(-20) + off, "Available")
    frames.status(m(-10), m(-10) + off, "Preparing")
    frames.start(m(0), m(0) + off)
    frames.sample(m(30), m(30) + off, 3_000)
    frames.status(m(50), m(50) + off, "SuspendedEV")
    frames.stop(m(60), m(60) + off, 5_000)
    assert seen(frames.session()) == (4_000, 3_600, 600, False)
    assert frames.session()["flags"] == ["timestamp_corrected"]


@pytest.mark.parametrize("behind", [6, 30, 60, 480])
@pytest.mark.parametrize("told_before", [0, 1, 2])
def test_a_clock_that_is_behind_bills_no_time_more_than_passed(told_before, behind):
    """However many statuses showed the offset before the start, one clock counts for all."""
    frames = Frames()
    off = timedelta(minutes=-behind)
    for minute in (-45, -10)[:told_before]:
        frames.status(m(minute), m(minute) + off, "Available")
    frames.start(m(0), m(0) + off)
    frames.status(m(0.1), m(0.1) + off, "Charging")
    frames.sample(m(30), m(30) + off, 3_000)
    frames.status(m(50), m(50) + off, "SuspendedEV")
    frames.sample(m(55), m(55) + off, 5_000)
    frames.stop(m(60), m(60) + off, 5_000)
    assert seen(frames.session()) == (4_000, 3_600, 600, False)
    assert frames.session()["flags"] == (["timestamp_corrected"] if told_before else [])


def test_an_old_status_before_an_offline_queue_is_no_offset():
    frames = Frames()
    frames.boot(m(600))
    frames.status(m(600), m(300), "Available")
    frames.start(m(601), m(0))
    frames.sample(m(601), m(30), 3_000)
    frames.stop(m(601), m(60), 5_000)
    assert frames.session()["flags"] == []
    assert seen(frames.session()) == (4_000, 3_600, 0, False)


def test_a_start_whose_offset_was_not_known_and_a_corrected_stop_are_reviewed():
    """The start waited, so it shows another offset than what is told at once."""
    frames = Frames()
    off = timedelta(hours=-1)
    frames.start(m(30), m(0) + off)
    frames.status(m(31), m(31) + off, "Charging")
    frames.status(m(50), m(50) + off, "SuspendedEV")
    frames.stop(m(60), m(60) + off, 5_000)
    assert "needs_review" in frames.session()["flags"]


def test_a_boot_sets_the_clock_and_ends_the_offset():
    """Chago: two hours ahead until the answer to its boot is applied."""
    frames = Frames()
    frames.status(m(0), m(120), "Available")
    frames.boot(m(1))
    frames.start(m(2), m(2))
    frames.stop(m(62), m(62), 5_000)
    assert seen(frames.session()) == (4_000, 3_600, 0, False)
    assert frames.session()["flags"] == []


def test_a_session_longer_than_policy_allows_is_reviewed():
    for hours, reviewed in ((72, False), (73, True)):
        frames = Frames()
        frames.start(m(0), m(0))
        frames.stop(m(60 * hours), m(60 * hours), 5_000)
        assert seen(frames.session()) == (4_000, 3_600 * hours, 0, reviewed)


def test_a_repeated_stop_that_differs_by_milliseconds_says_the_same():
    frames = Frames()
    frames.start(m(0), m(0))
    frames.stop(m(60), m(60), 5_000)
    frames.stop(m(61), m(60) + timedelta(milliseconds=900), 5_000)
    assert frames.session()["flags"] == ["duplicate_stop"]
    assert seen(frames.session()) == (4_000, 3_600, 0, False)
