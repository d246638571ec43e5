"""The rows of each event: their devices, times and values."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain import events
from gateway.domain.clock import milliseconds
from gateway.domain.event_values import Progress, Reading, Sample
from gateway.domain.events import Event
from gateway.northbound.batching import connect_message, pack
from gateway.northbound.telemetry import (
    TelemetryRow,
    double,
    sign_of_life,
    telemetry_rows,
    text_that_stays_text,
)
from gateway.simulation.thingsboard.gson import parse
from gateway.simulation.thingsboard.values import store_value

LOG = "gw sessions"
AT = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)
MS = 1_772_366_400_250
ABOUT = {"charge_point_id": "CP-1", "received_at": AT}
PROGRESS = Progress(
    as_of=AT,
    energy_wh=Decimal("5000.1234567"),
    duration_s=1800,
    charging_s=1700,
    idle_s=100,
    meter_wh=Decimal(6000),
    power_w=Decimal("7200.5"),
    currency="EUR",
    cost_total=Decimal("1.50"),
    cost_total_minor=150,
    cost_energy=Decimal("1.50"),
    price_kwh=Decimal("0.30"),
    flags=("meter_reset",),
)
VALUES_OF_PROGRESS = {
    "tx_duration_s": 1800,
    "tx_charging_s": 1700,
    "tx_idle_s": 100,
    "tx_flags": ("meter_reset",),
    "tx_energy_wh": 5000.123457,
    "meter_wh": 6000,
    "power_w": 7200.5,
    "power_source": "derived",
    "currency": "EUR",
    "cost_total": 1.5,
    "cost_total_minor": 150,
    "cost_as_of": MS,
    "cost_energy": 1.5,
    "price_kwh": 0.3,
}
TX = {"transaction_id": 7, "connector_id": 1, "started_at": AT - timedelta(seconds=1800)}


def rows_of(event: Event) -> list[tuple[str, int | None, dict]]:
    return [(row.device, row.ts, dict(row.values)) for row in telemetry_rows(event, LOG)]


def status(status="Available", connector=1, **more):
    return events.ConnectorStatusChanged(**ABOUT | more, connector_id=connector, status=status)


def sampled(*samples: Sample, at: datetime | None = AT, connector: int = 1, **more):
    readings = (Reading(at, samples),)
    return events.MeterSampled(**ABOUT, connector_id=connector, readings=readings, **more)


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (
            events.ChargePointConnected(**ABOUT, remote_address="10.0.0.1:80", security_profile=1),
            [
                ("CP-1", MS, {"connected": True}),
                (
                    "CP-1",
                    None,
                    {
                        "ocpp_version": "ocpp1.6",
                        "security_profile": 1,
                        "remote_address": "10.0.0.1:80",
                    },
                ),
            ],
        ),
        (
            events.ChargePointDisconnected(**ABOUT, reason="closed"),
            [("CP-1", MS, {"connected": False, "disconnect_reason": "closed"})],
        ),
        (
            events.ChargePointDisconnected(**ABOUT, reason="closed", connectors=(1, 2)),
            [
                ("CP-1", MS, {"connected": False, "disconnect_reason": "closed"}),
                ("CP-1/1", MS, {"connected": False}),
                ("CP-1/2", MS, {"connected": False}),
            ],
        ),
        (
            events.ChargePointBooted(**ABOUT, vendor="V", model="M", serial_number="0042"),
            [("CP-1", None, {"charger": {"vendor": "V", "model": "M", "serial": "0042"}})],
        ),
        (events.ChargePointBooted(**ABOUT), []),
        (events.HeartbeatReceived(**ABOUT), []),
        (events.IdTagPresented(**ABOUT, id_tag="T", status="Accepted"), []),
        (events.DataTransferred(**ABOUT, vendor_id="V"), []),
        (
            events.FirmwareStatusChanged(**ABOUT, status="Installing"),
            [("CP-1", MS, {"firmware_status": "Installing"})],
        ),
        (
            events.DiagnosticsStatusChanged(**ABOUT, status="Uploaded"),
            [("CP-1", MS, {"diagnostics_status": "Uploaded"})],
        ),
        (
            events.SecurityEventReported(**ABOUT, type="TamperDetection"),
            [("CP-1", MS, {"security_event": {"type": "TamperDetection", "tech_info": ""}})],
        ),
        (
            events.CommandCarriedOut(**ABOUT, method="Reset", result="Accepted"),
            [("CP-1", MS, {"last_command": "Reset", "last_command_result": "Accepted"})],
        ),
        (
            events.CommandCarriedOut(
                **ABOUT,
                method="setCharging",
                result="Rejected",
                connector_id=2,
                tx_active=False,
                tx_active_ms=MS - 9,
            ),
            [
                ("CP-1", MS, {"last_command": "setCharging", "last_command_result": "Rejected"}),
                ("CP-1/2", MS - 9, {"tx_active": False}),
            ],
        ),
        (
            events.FramesRejected(**ABOUT, total=3, code="FormationViolation", why="x"),
            [("CP-1", MS, {"rejected_frames": 3})],
        ),
        (
            events.SchemaDeviated(**ABOUT, total=4, action="BootNotification", what="iccid: null"),
            [("CP-1", MS, {"schema_deviations": 4})],
        ),
        (
            events.FirmwareStatusChanged(**ABOUT, status="x" * 256),
            [("CP-1", MS, {"firmware_status": "x" * 254 + "…"})],
        ),
        (
            events.FirmwareStatusChanged(**ABOUT, status="x" * 255),
            [("CP-1", MS, {"firmware_status": "x" * 255})],
        ),
        (
            status("Faulted", 0, error_code="OtherError", vendor_error_code="0x17", info="hot"),
            [
                (
                    "CP-1",
                    MS,
                    {
                        "status": "Faulted",
                        "error_code": "OtherError",
                        "vendor_error_code": "0x17",
                        "info": "hot",
                    },
                )
            ],
        ),
        (
            status("Charging", new=True, timestamp=AT - timedelta(hours=1)),
            [
                ("CP-1/1", MS - 3_600_000, {"status": "Charging", "error_code": "NoError"}),
                ("CP-1/1", MS, {"connected": True}),
            ],
        ),
        (status("Charging"), [("CP-1/1", MS, {"status": "Charging", "error_code": "NoError"})]),
        (
            status("Available", 2),
            [("CP-1/2", MS, {"status": "Available", "error_code": "NoError", "power_w": 0})],
        ),
        (status(connector=257), []),
        (status(connector=-1), []),
        (
            sampled(
                Sample("7400", measurand="Power.Active.Import", unit="W"),
                Sample("12.5", measurand="Energy.Active.Import.Register", unit="kWh"),
            ),
            [("CP-1/1", MS, {"power_w": 7400, "meter_wh": 12500, "power_source": "measured"})],
        ),
        (sampled(Sample("1"), connector=0), []),
        (sampled(Sample("nonsense")), []),
        (
            events.TransactionOpened(
                **ABOUT, **TX, id_tag="0042", progress=PROGRESS, tariff={"id": "STD"}
            ),
            [
                (
                    "CP-1/1",
                    MS,
                    {
                        "tx_active": True,
                        "tx_id": 7,
                        "tx_started_at": MS - 1_800_000,
                        "tx_info": {"id_tag": "0042", "tariff_id": "STD"},
                        **VALUES_OF_PROGRESS,
                    },
                )
            ],
        ),
        (
            events.TransactionProgressed(**ABOUT, **TX, progress=PROGRESS),
            [("CP-1/1", MS, VALUES_OF_PROGRESS)],
        ),
        (events.TransactionProgressed(**ABOUT, **TX | {"connector_id": 0}, progress=PROGRESS), []),
        (events.MessageOrphaned(**ABOUT, message="Stop", transaction_id=1, content="{}"), []),
        (events.NotAccounted(**ABOUT, seq=1, why="x"), []),
        (
            events.TransactionClosed(**ABOUT, transaction_id=1, connector_id=1, reason="Stale"),
            [],
        ),
    ],
)
def test_an_event_is_told_in_exactly_these_rows(event, expected):
    assert rows_of(event) == expected


def test_a_receipt_is_told_at_its_own_instant_on_all_three_devices():
    receipt = {"receipt_id": "R", "total_incl_vat": "1.50"}
    settled = events.TransactionSettled(
        **ABOUT, **TX, progress=PROGRESS, receipt=receipt, published_ms=MS + 3
    )
    session = {
        "receipt": receipt,
        "session_energy_kwh": 5.000123,
        "session_duration_s": 1800,
        "session_idle_s": 100,
        "session_count": 1,
        "session_cost": 1.5,
        "session_cost_minor": 150,
    }
    idle = {"tx_active": False, "power_w": 0, "current_a": 0}
    connector, charge_point = {"session_connector": 1}, {"session_charge_point": "CP-1"}
    assert rows_of(settled) == [
        ("CP-1/1", MS, VALUES_OF_PROGRESS | idle),
        ("CP-1/1", MS + 3, session),
        ("CP-1", MS + 3, session | connector),
        (LOG, MS + 3, session | connector | charge_point),
    ]


def test_a_correction_replaces_the_receipt_and_says_nothing_of_the_connector_now():
    settled = events.TransactionSettled(
        **ABOUT, **TX, progress=PROGRESS, receipt={}, published_ms=MS - 9, version=2
    )
    corrected = rows_of(settled)
    devices = ["CP-1/1", "CP-1", LOG]
    assert [(device, ts) for device, ts, _ in corrected] == [(name, MS - 9) for name in devices]
    assert all("tx_active" not in values for _, _, values in corrected)


def test_a_session_without_a_price_has_no_cost_at_all():
    free = attrs.evolve(
        PROGRESS, currency=None, cost_total=None, cost_total_minor=None, cost_energy=None
    )
    settled = events.TransactionSettled(**ABOUT, **TX, progress=free, receipt={}, published_ms=MS)
    for _, _, values in rows_of(settled):
        assert not {key for key in values if "cost" in key or key == "currency"}


def test_a_receipt_of_a_connector_that_cannot_be_is_told_without_it():
    settled = events.TransactionSettled(
        **ABOUT, **TX | {"connector_id": 999}, progress=PROGRESS, receipt={}, published_ms=MS
    )
    assert [device for device, _, _ in rows_of(settled)] == ["CP-1", LOG]


# --- time --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("timestamp", "is_believed"),
    [
        (AT - timedelta(days=300), True),
        (AT + timedelta(seconds=60), True),
        (AT + timedelta(seconds=61), False),
        (datetime(2015, 1, 1, tzinfo=UTC), True),
        (datetime(2014, 12, 31, 23, 59, 59, tzinfo=UTC), False),
        (datetime(1970, 1, 1, tzinfo=UTC), False),
    ],
)
def test_a_timestamp_is_believed_or_the_skew_is_told(timestamp, is_believed):
    *skew, row = rows_of(status(timestamp=timestamp))
    if is_believed:
        assert (skew, row[1]) == ([], milliseconds(timestamp))
    else:
        seconds = (timestamp - AT).total_seconds()
        assert skew == [("CP-1", MS, {"clock_skew_s": round(seconds, 3)})]
        assert row[1] == MS


@pytest.mark.parametrize(
    "event",
    [
        sampled(
            Sample("5"),
            at=datetime(1970, 1, 1, tzinfo=UTC),
            timestamp=datetime(1970, 1, 1, tzinfo=UTC),
        ),
        events.TransactionStarted(
            **ABOUT,
            timestamp=datetime(1970, 1, 1, tzinfo=UTC),
            connector_id=1,
            id_tag="T",
            meter_start="0",
        ),
        events.TransactionStopped(
            **ABOUT, timestamp=datetime(1970, 1, 1, tzinfo=UTC), transaction_id=1, meter_stop="0"
        ),
    ],
)
def test_every_message_with_an_absurd_time_tells_the_skew(event):
    assert rows_of(event)[0] == ("CP-1", MS, {"clock_skew_s": -1_772_366_400.25})


def test_readings_of_one_message_have_each_their_own_time():
    times = (AT - timedelta(minutes=15), None, AT + timedelta(hours=1))
    readings = tuple(Reading(at, (Sample(str(n)),)) for n, at in enumerate(times, 1))
    event = events.MeterSampled(**ABOUT, connector_id=1, readings=readings)
    assert rows_of(event) == [
        ("CP-1/1", MS - 900_000, {"meter_wh": 1}),
        ("CP-1/1", MS, {"meter_wh": 2}),
        ("CP-1/1", MS, {"meter_wh": 3}),
    ]


@given(st.datetimes(datetime(2015, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_milliseconds_are_those_of_the_instant(at):
    assert milliseconds(at) == (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


# --- values ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        "0123",
        "5",
        "-5",
        "1.5",
        "-1.5",
        ".5",
        "-.5",
        "٣٤",
        "\uff11\uff12",
        "12345678901234567890",
        "NaN",
    ],
)
def test_text_that_looks_like_a_number_gets_an_apostrophe(given):
    assert text_that_stays_text(given) == "'" + given
    assert store_value(text_that_stays_text(given)) == ("'" + given, None)


@pytest.mark.parametrize(
    "given", ["", "-", ".", "5.", "1e3", "+5", "1.2.3", "04AABB", "10.0.0.1", "--5"]
)
def test_other_text_stays_as_it_is(given):
    assert text_that_stays_text(given) == given
    assert store_value(text_that_stays_text(given)) == (given, None)


@given(
    st.text(st.characters(categories=["Nd", "No", "Nl"], include_characters="-.eE+ x"), max_size=9)
)
def test_no_text_is_ever_taken_for_a_number(given):
    stored, complaint = store_value(text_that_stays_text(given))
    assert complaint is None
    assert isinstance(stored, str)


@given(st.decimals().filter(lambda value: not value.is_snan()))
def test_a_number_has_six_decimals_at_most_or_is_absent(value):
    shown = double(value)
    if shown is None:
        assert not value.is_finite() or abs(value) >= 2**53 - 1
    else:
        assert abs(Decimal(shown) - value) <= Decimal("0.000001") * max(1, abs(value))
        stored, complaint = store_value_of(shown)
        assert complaint is None
        assert stored == shown


def store_value_of(shown: float):
    return store_value(parse(msgspec.json.encode({"v": shown}))[0]["v"])


def settled(signed: list[dict]) -> events.TransactionSettled:
    receipt = {"receipt_id": "R", "version": 1, "total_incl_vat": "1.50", "signed": signed}
    return events.TransactionSettled(
        **ABOUT, **TX, progress=PROGRESS, receipt=receipt, version=1, published_ms=MS
    )


def test_signed_values_that_would_make_a_receipt_too_large_go_apart_at_its_time():
    small, large = ([{"value": "x" * size}] for size in (40_000, 55_000))
    for _, _, values in rows_of(settled(small))[-3:]:
        assert values["receipt"]["signed"] == small
        assert "receipt_signed" not in values
    for device, ts, values in rows_of(settled(large))[-3:]:
        assert device in ("CP-1", "CP-1/1", LOG)
        assert ts == MS
        assert values["receipt"] == {"receipt_id": "R", "version": 1, "total_incl_vat": "1.50"}
        assert values["receipt_signed"] == large
        assert values["session_cost"] == 1.5


@pytest.mark.parametrize("size", [100, 49_000, 51_000, 55_000, 59_000])
def test_a_receipt_is_told_whole_in_messages_that_thingsboard_takes(size):
    event = settled([{"value": "x" * size}])
    for message in pack([(1, row) for row in telemetry_rows(event, LOG)], batch_devices=False):
        assert len(message.publication.payload) <= 60_000


def test_a_sign_of_life_says_what_is_so_now():
    assert sign_of_life("CP-1", {"connected": False}, AT) == TelemetryRow(
        "CP-1", MS, {"connected": False}
    )
    known = {"connected": False, "status": "Faulted"}
    assert sign_of_life("CP-1", known, AT) == TelemetryRow("CP-1", MS, {"connected": False})
    assert sign_of_life("CP-1/1", {"status": "0"}, AT) == TelemetryRow(
        "CP-1/1", MS, {"status": "'0"}
    )
    assert sign_of_life("CP-1/1", known, AT) == TelemetryRow("CP-1/1", MS, known)
    assert sign_of_life(LOG, {}, AT).values == {}


def test_devices_are_announced_with_their_types():
    kinds = {
        device: json.loads(connect_message(device, LOG).payload)["type"]
        for device in ("CP-1", "CP-1/2", LOG)
    }
    assert kinds == {"CP-1": "EV charger", "CP-1/2": "EV connector", LOG: "EV session log"}
