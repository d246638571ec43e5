"""The table of keys: every row of any event keeps to it, and ThingsBoard takes all as meant."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.domain import events
from gateway.domain.events import Event
from gateway.northbound import telemetry_keys
from gateway.northbound.batching import ATTRIBUTES_TOPIC, TELEMETRY_TOPIC, pack
from gateway.northbound.telemetry import TelemetryRow, telemetry_rows
from gateway.simulation.thingsboard import ThingsBoard
from gateway.simulation.thingsboard.gson import parse
from gateway.simulation.thingsboard.rows import row_of, values_of
from gateway.simulation.thingsboard.store import Device, Traffic

from .strategies import OF_KIND, any_event

LOG = "gw sessions"
AT = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)
KINDS = {"bool": bool, "int": int, "number": (int, float, Decimal), "text": str}


def table_of(row: TelemetryRow) -> dict[str, telemetry_keys.Key]:
    if row.device == LOG:
        kind = telemetry_keys.SESSION_LOG_TYPE
    else:
        kind = (
            telemetry_keys.CONNECTOR_TYPE if "/" in row.device else telemetry_keys.CHARGE_POINT_TYPE
        )
    return (telemetry_keys.ATTRIBUTES if row.ts is None else telemetry_keys.TELEMETRY)[kind]


@settings(max_examples=200)
@given(any_event)
def test_every_key_is_in_the_table_and_of_its_kind(event):
    for row in telemetry_rows(event, LOG):
        table = table_of(row)
        for key, value in row.values.items():
            kind = table[key].kind
            if kind == "json":
                assert isinstance(value, dict | list | tuple), key
            else:
                assert isinstance(value, KINDS[kind]), (key, value)
                assert (kind == "bool") == isinstance(value, bool), (key, value)


@settings(max_examples=60)
@given(st.lists(any_event, min_size=1, max_size=8))
def test_thingsboard_takes_the_rows_of_any_events(given):
    """Nothing is lost, taken for another type, null, or refused by the double's rules."""
    assert violations_of(given) == []


def test_every_kind_of_event_is_generated():
    assert set(OF_KIND) == {
        kind
        for kind in vars(events).values()
        if isinstance(kind, type)
        and issubclass(kind, Event)
        and kind not in (Event, events.MeterMessage, events.TransactionFact)
    }


def test_the_keys_promised_to_users_are_all_there():
    promised = {
        "CHARGE_POINT": "connected disconnect_reason clock_skew_s status error_code"
        " vendor_error_code info firmware_status diagnostics_status security_event last_command"
        " last_command_result rejected_frames",
        "CHARGE_POINT_ATTRIBUTES": "charger ocpp_version security_profile remote_address",
        "CONNECTOR": "status error_code tx_active tx_id tx_started_at tx_duration_s tx_charging_s"
        " tx_idle_s tx_energy_wh meter_wh power_w power_source current_a current_l1_a voltage_v"
        " voltage_l1_v current_offered_a power_offered_w soc_percent temperature_c frequency_hz"
        " energy_export_wh currency cost_total cost_total_minor cost_energy cost_time cost_idle"
        " cost_fixed cost_as_of price_kwh price_min price_idle_min tx_flags tx_info",
        "RECEIPT": "receipt session_energy_kwh session_duration_s session_idle_s session_cost"
        " session_cost_minor session_count",
        "SESSION_LOG": "receipt session_energy_kwh session_duration_s session_idle_s session_cost"
        " session_cost_minor session_count session_charge_point session_connector",
    }
    for table, names in promised.items():
        assert set(names.split()) <= set(getattr(telemetry_keys, table)), table
    kinds = {key.kind for table in promised for key in getattr(telemetry_keys, table).values()}
    assert kinds == {"bool", "int", "number", "text", "json"}


def violations_of(given: list[Event]) -> list[object]:
    """What ThingsBoard's double objects to when it stores the rows of these events."""
    thingsboard = ThingsBoard(now=lambda: AT + timedelta(days=60))
    devices: dict[str, Device] = {}
    rows = [(seq, row) for seq, event in enumerate(given, 1) for row in telemetry_rows(event, LOG)]
    for message in pack(rows, batch_devices=True):
        payload = message.publication.payload
        json.loads(payload, parse_constant=pytest.fail)
        for name, body in parse(payload)[0].items():
            device = devices.setdefault(name, Device(name, "x"))
            if message.publication.topic == TELEMETRY_TOPIC:
                for item in body:
                    ts, values = row_of(thingsboard, name, item, in_gateway=True)
                    device.save(ts, values_of(thingsboard, device, values) or {}, Traffic())
            else:
                assert message.publication.topic == ATTRIBUTES_TOPIC
                values_of(thingsboard, device, body)
    return thingsboard.violations
