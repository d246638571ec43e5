"""The dashboard *EV sessions*: energy, revenue and number of sessions, and every transaction."""

from __future__ import annotations

from .cards import value_card
from .columns import GREEN, ORANGE, PURPLE, column, telemetry
from .devices import CHARGERS, CONNECTORS, IN_SESSION, SESSION_LOG, THIS, Alias
from .frame import Place, State, dashboard
from .grids import device_table
from .ids import Json
from .tables import connector_table, energy_per_day, receipt_table, sessions_per_day
from .windows import this_month

TITLE = "EV sessions"


def sessions() -> Json:
    return dashboard(
        TITLE,
        "Finished sessions of the chosen time. A click on a charger opens its own.",
        this_month(aggregation="NONE"),
        [
            State("default", TITLE, _all()),
            State("charger", "Sessions of ${entityName}", _charger()),
        ],
    )


def _all() -> tuple[Place, ...]:
    return (
        *_totals(SESSION_LOG),
        Place(energy_per_day(SESSION_LOG), 3, 0, 12, 6),
        Place(sessions_per_day(SESSION_LOG), 3, 12, 12, 6),
        Place(
            connector_table("Sessions now", CONNECTORS, only=IN_SESSION, opens=None), 9, 0, 24, 5
        ),
        Place(_per_charger(), 14, 0, 24, 7),
        Place(
            receipt_table("All transactions, by the time they stopped", SESSION_LOG, charger=True),
            21, 0, 24, 10,
        ),
    )  # fmt: skip


def _charger() -> tuple[Place, ...]:
    return (
        *_totals(THIS),
        Place(energy_per_day(THIS), 3, 0, 12, 6),
        Place(sessions_per_day(THIS), 3, 12, 12, 6),
        Place(receipt_table("Transactions, by the time they stopped", THIS), 9, 0, 24, 10),
    )


def _totals(of: Alias) -> list[Place]:
    """Sums over the dashboard's time window.  Money of several currencies is added as numbers."""
    cards = [
        value_card(
            telemetry("session_energy_kwh", "Energy", units="kWh", decimals=1, over_time="SUM"),
            of, "bolt", "#1565c0",
        ),
        value_card(
            telemetry("session_cost", "Revenue", decimals=2, over_time="SUM"),
            of, "payments", "#2e7d32",
        ),
        value_card(
            telemetry("session_count", "Sessions", decimals=0, over_time="SUM"),
            of, "ev_station", "#ef6c00",
        ),
        value_card(
            telemetry("session_duration_s", "Mean duration", units="min", decimals=0,
                      over_time="AVG", per=60),
            of, "timer", "#6a1b9a",
        ),
    ]  # fmt: skip
    return [Place(card, 0, 6 * number, 6, 3) for number, card in enumerate(cards)]


def _per_charger() -> Json:
    columns = [
        column(telemetry("session_energy_kwh", "Energy", units="kWh", decimals=1,
                         over_time="SUM")),
        column(telemetry("session_cost", "Revenue", decimals=2, over_time="SUM", color=GREEN)),
        column(telemetry("session_count", "Sessions", decimals=0, over_time="SUM", color=ORANGE)),
        column(telemetry("session_duration_s", "Mean duration", units="min", decimals=0,
                         over_time="AVG", per=60, color=PURPLE)),
        column(telemetry("session_idle_s", "Mean idle", units="min", decimals=0,
                         over_time="AVG", per=60)),
    ]  # fmt: skip
    return device_table("Per charger", CHARGERS, columns, name="Charger", opens="charger")
