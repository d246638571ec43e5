"""Tables and charts that both dashboards show."""

from __future__ import annotations

from . import cells
from .charts import axis, chart
from .columns import GREEN, ORANGE, PURPLE, attribute, bar, column, line, telemetry
from .devices import Alias, Filter
from .grids import device_table, row_table
from .ids import Json
from .windows import DAY, last, this_month

RECENT = last(30 * DAY, aggregation="NONE")


def connector_table(
    title: str, of: Alias, *, opens: str | None = "connector", only: Filter | None = None,
    one: bool = False,
) -> Json:  # fmt: skip
    """Connectors, with the open session of each."""
    columns = [
        column(telemetry("connected", cells.CONNECTION), hidden=True),
        column(telemetry("tx_active", cells.SESSION), hidden=True),
        column(telemetry("currency", cells.CURRENCY), hidden=True),
        column(telemetry("status", "Status"), content=cells.STATUS, style=cells.STATUS_COLOUR),
        column(telemetry("power_w", "Power, kW"), content=cells.POWER),
        column(telemetry("tx_energy_wh", "Energy, kWh"), content=cells.SESSION_KWH),
        column(telemetry("cost_total", "Cost"), content=cells.SESSION_COST),
        column(telemetry("soc_percent", "Battery, %"), content=cells.SESSION_PERCENT),
        column(telemetry("tx_info", "Id tag"), content=cells.SESSION_TAG),
        column(telemetry("tx_started_at", "Since"), content=cells.SESSION_SINCE),
        column(telemetry("tx_idle_s", "Idle, min"), content=cells.SESSION_MINUTES),
        column(telemetry("error_code", "Error"), content=cells.TEXT),
    ]
    return device_table(title, of, columns, only=only, name="Connector", opens=opens, one=one)


def charger_table(title: str, of: Alias, *, opens: str | None = None, one: bool = False) -> Json:
    """Charge points: whether they are online, their hardware, and the last command."""
    columns = [
        column(
            telemetry("connected", cells.CONNECTION),
            content=cells.ONLINE,
            style=cells.ONLINE_COLOUR,
        ),
        column(telemetry("status", "Status"), content=cells.STATUS, style=cells.STATUS_COLOUR),
        column(attribute("charger", "Hardware"), content=cells.HARDWARE),
        column(attribute("charger", "Firmware"), content=cells.of_json("firmware")),
        column(telemetry("firmware_status", "Update"), content=cells.TEXT),
        column(telemetry("last_command", "Last command"), content=cells.TEXT),
        column(telemetry("last_command_result", "Result"), content=cells.TEXT),
        column(telemetry("disconnect_reason", "Last left because"), content=cells.TEXT),
    ]
    return device_table(title, of, columns, name="Charger", opens=opens, one=one)


def receipt_table(title: str, of: Alias, *, charger: bool = False, connector: bool = True) -> Json:
    """Finished sessions, newest first; the timestamp is when each stopped.

    The most recent of 30 days, as many as `windows.MOST_POINTS`; the widget's own time window
    goes further back.
    """
    columns = [
        column(telemetry("receipt", "Start"), content=cells.RECEIPT_START),
        *([column(telemetry("session_charge_point", "Charger"), content=cells.TEXT)] * charger),
        *([column(telemetry("session_connector", "Connector"))] * connector),
        column(telemetry("receipt", "Id tag"), content=cells.of_json("id_tag")),
        column(telemetry("session_energy_kwh", "Energy", units="kWh", decimals=2)),
        column(telemetry("session_duration_s", "Duration", units="min", decimals=0, per=60)),
        column(telemetry("session_idle_s", "Idle", units="min", decimals=0, per=60)),
        column(telemetry("session_cost", "Price", decimals=2)),
        column(telemetry("receipt", "Currency"), content=cells.of_json("currency")),
        column(telemetry("receipt", "Ended by"), content=cells.of_json("stop_reason")),
        column(
            telemetry("receipt", "Flags"),
            content=cells.RECEIPT_FLAGS,
            style=cells.RECEIPT_FLAGS_COLOUR,
        ),
    ]
    return row_table(title, of, columns, RECENT)


def power_chart(of: Alias, name: str = "") -> Json:
    """name: before each label, `${entityName} ` where several devices share a chart."""
    keys = [
        line(telemetry("power_w", f"{name}Power", units="kW", decimals=1, per=1000)),
        line(telemetry("power_offered_w", f"{name}Offered", units="kW", decimals=1, per=1000,
                       color=GREEN)),
        line(telemetry("current_a", f"{name}Current", units="A", decimals=1, color=ORANGE), "amps"),
    ]  # fmt: skip
    axes = {"default": axis("kW"), "amps": axis("A", order=1, right=True)}
    return chart("Power and current", of, keys, axes)


def battery_chart(of: Alias, name: str = "") -> Json:
    keys = [
        line(telemetry("voltage_v", f"{name}Voltage", units="V", decimals=0, color=PURPLE)),
        line(telemetry("soc_percent", f"{name}Battery", units="%", decimals=0, color=GREEN), "soc"),
    ]
    axes = {"default": axis("V"), "soc": axis("%", order=1, right=True)}
    return chart("Voltage and battery", of, keys, axes)


def energy_per_day(of: Alias) -> Json:
    keys = [bar(telemetry("session_energy_kwh", "Energy", units="kWh", decimals=1))]
    days = this_month(aggregation="SUM", interval=DAY)
    return chart("Energy per day", of, keys, {"default": axis("kWh")}, timewindow=days)


def sessions_per_day(of: Alias) -> Json:
    keys = [
        bar(telemetry("session_cost", "Revenue", decimals=2, color=GREEN)),
        bar(telemetry("session_count", "Sessions", decimals=0, color=ORANGE), "count"),
    ]
    axes = {"default": axis("Revenue"), "count": axis("Sessions", order=1, right=True)}
    days = this_month(aggregation="SUM", interval=DAY)
    return chart("Revenue and sessions per day", of, keys, axes, timewindow=days)
