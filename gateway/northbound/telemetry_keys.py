"""Every telemetry key and attribute that is published, in one table.

README, dashboards and tests are held to this table; `rows` builds no key that is not in it.
"""

from __future__ import annotations

import attrs


@attrs.frozen
class TelemetryKey:
    """kind: bool, int, number, text or json."""

    name: str
    kind: str
    meaning: str


CHARGE_POINT_TYPE = "EV charger"
CONNECTOR_TYPE = "EV connector"
SESSION_LOG_TYPE = "EV session log"


def _table(*rows: tuple[str, str, str]) -> dict[str, TelemetryKey]:
    return {name: TelemetryKey(name, kind, meaning) for name, kind, meaning in rows}


CHARGE_POINT = _table(
    ("connected", "bool", "its WebSocket is open"),
    ("disconnect_reason", "text", "why it last left"),
    ("clock_skew_s", "number", "its clock minus ours, when it cannot be believed"),
    ("status", "text", "of the charge point as a whole (connector 0)"),
    ("error_code", "text", "of connector 0"),
    ("vendor_error_code", "text", "of connector 0"),
    ("info", "text", "of connector 0"),
    ("firmware_status", "text", "of a firmware update under way"),
    ("diagnostics_status", "text", "of an upload of diagnostics or logs"),
    ("security_event", "json", "{type, tech_info}"),
    ("last_command", "text", "method of the last RPC"),
    ("last_command_result", "text", "Accepted, Rejected, ... or an error code"),
    ("rejected_frames", "int", "frames since it connected that broke the protocol"),
    ("schema_deviations", "int", "messages since it connected that broke the schema but were read"),
    ("trace", "json", "a frame while it is traced: {way, frame, reason}, or {event, reason}"),
)

CHARGE_POINT_ATTRIBUTES = _table(
    ("charger", "json", "vendor, model, serial, firmware, iccid, imsi, meter type and serial"),
    ("ocpp_version", "text", "ocpp1.6"),
    ("security_profile", "int", "0 none, 1 password, 2 TLS, 3 TLS with a client certificate"),
    ("remote_address", "text", "where it connects from"),
)

CONNECTOR = _table(
    ("connected", "bool", "the WebSocket of its charge point is open"),
    ("status", "text", "Available, Preparing, Charging, SuspendedEV, ..."),
    ("status_source", "text", "reported, or inferred from the transactions"),
    ("error_code", "text", "NoError, GroundFailure, ..."),
    ("tx_active", "bool", "a transaction is open"),
    ("tx_id", "int", "OCPP's transaction id"),
    ("tx_started_at", "int", "ms since 1970"),
    ("tx_duration_s", "int", "since its start"),
    ("tx_charging_s", "int", "of which charging"),
    ("tx_idle_s", "int", "of which occupied without charging"),
    ("tx_energy_wh", "number", "delivered so far"),
    ("tx_flags", "json", "what is doubtful about it"),
    ("tx_info", "json", "{id_tag, tariff_id}"),
    ("meter_wh", "number", "energy import register"),
    ("power_w", "number", "into the car"),
    ("power_source", "text", "measured, or derived from the register"),
    ("current_a", "number", "sum of the phases"),
    ("current_l1_a", "number", ""),
    ("current_l2_a", "number", ""),
    ("current_l3_a", "number", ""),
    ("voltage_v", "number", "mean of the phases, to neutral"),
    ("voltage_l1_v", "number", ""),
    ("voltage_l2_v", "number", ""),
    ("voltage_l3_v", "number", ""),
    ("current_offered_a", "number", "limit offered to the car"),
    ("power_offered_w", "number", "limit offered to the car"),
    ("soc_percent", "number", "of the car's battery"),
    ("temperature_c", "number", ""),
    ("frequency_hz", "number", ""),
    ("energy_export_wh", "number", "export register"),
    ("currency", "text", "ISO 4217"),
    ("cost_total", "number", "if it stopped now, including VAT"),
    ("cost_total_minor", "int", "the same in minor units (cents)"),
    ("cost_energy", "number", "including VAT"),
    ("cost_time", "number", "including VAT"),
    ("cost_idle", "number", "including VAT"),
    ("cost_fixed", "number", "including VAT"),
    ("cost_as_of", "int", "ms since 1970 of the data behind the cost"),
    ("price_kwh", "number", "now, including VAT"),
    ("price_min", "number", "now, per minute, including VAT"),
    ("price_idle_min", "number", "now, per idle minute, including VAT"),
)

RECEIPT = _table(
    ("receipt", "json", "the whole receipt"),
    ("session_energy_kwh", "number", ""),
    ("session_duration_s", "int", ""),
    ("session_idle_s", "int", ""),
    ("session_cost", "number", "including VAT"),
    ("session_cost_minor", "int", "the same in minor units (cents)"),
    ("session_count", "int", "1, to be summed"),
    ("receipt_signed", "json", "a receipt's `signed`, where it would be too large for a message"),
)

CHARGE_POINT_RECEIPT = RECEIPT | _table(("session_connector", "int", ""))

SESSION_LOG = CHARGE_POINT_RECEIPT | _table(("session_charge_point", "text", ""))

TELEMETRY = {  # type of the device -> all that is published of it
    CHARGE_POINT_TYPE: CHARGE_POINT | CHARGE_POINT_RECEIPT,
    CONNECTOR_TYPE: CONNECTOR | RECEIPT,
    SESSION_LOG_TYPE: SESSION_LOG,
}

ATTRIBUTES = {CHARGE_POINT_TYPE: CHARGE_POINT_ATTRIBUTES}
