"""The dashboard *EV charging*: the fleet, a charger, a connector.

RPC widgets act on one device, so there is a page for a charger and one for a connector, each
opened by a click on the row of what it is about.  What lies next to it is found by the relation
that the rule chain makes (decision 6); nothing else on a page needs that.
"""

from __future__ import annotations

from .cards import alarm_count, device_count
from .controls import button, switch
from .devices import (
    CHARGERS,
    CHARGING,
    CONNECTORS,
    EVERYTHING,
    FAULTED,
    FREE,
    ITS_CHARGER,
    ITS_CONNECTORS,
    ONLINE,
    THIS,
)
from .frame import Place, State, dashboard
from .grids import alarm_table, rpc_table
from .ids import Json
from .tables import battery_chart, charger_table, connector_table, power_chart, receipt_table
from .windows import HOUR, MINUTE, last

TITLE = "EV charging"


def charging() -> Json:
    return dashboard(
        TITLE,
        "The fleet now. A click on a row opens the connector or the charger, to be operated.",
        last(6 * HOUR, aggregation="AVG", interval=MINUTE),
        [
            State("default", TITLE, _fleet()),
            State("charger", "Charger ${entityName}", _charger()),
            State("connector", "Connector ${entityName}", _connector()),
        ],
    )


def _fleet() -> tuple[Place, ...]:
    counts = [
        device_count("Chargers online", CHARGERS, "ev_station", "#2e7d32", ONLINE),
        device_count("Connectors charging", CONNECTORS, "bolt", "#1565c0", CHARGING),
        device_count("Connectors free", CONNECTORS, "check_circle", "#00838f", FREE),
        device_count("Connectors faulted", CONNECTORS, "report", "#c62828", FAULTED),
        alarm_count("Active alarms", EVERYTHING),
    ]
    widths = [5, 5, 5, 5, 4]
    places = [
        Place(count, 0, sum(widths[:number]), widths[number], 2)
        for number, count in enumerate(counts)
    ]
    return (
        *places,
        Place(connector_table("Connectors", CONNECTORS), 2, 0, 24, 8),
        Place(charger_table("Chargers", CHARGERS, opens="charger"), 10, 0, 14, 8),
        Place(alarm_table("Active alarms of the last 30 days", EVERYTHING), 10, 14, 10, 8),
    )


def _charger() -> tuple[Place, ...]:
    whole = {"connectorId": 0}  # OCPP 1.6 §5.2: the charge point and all of its connectors
    buttons = [
        button("Reset", THIS, "Reset", {"type": "Soft"}, "restart_alt", color="#c62828"),
        button("All available", THIS, "ChangeAvailability", {**whole, "type": "Operative"},
               "check_circle", color="#2e7d32"),
        button("All unavailable", THIS, "ChangeAvailability", {**whole, "type": "Inoperative"},
               "block"),
        button("Ask for status", THIS, "TriggerMessage",
               {"requestedMessage": "StatusNotification"}, "refresh"),
    ]  # fmt: skip
    several = "${entityName} "
    return (
        *[Place(one, 0, 6 * number, 6, 2) for number, one in enumerate(buttons)],
        Place(charger_table("This charger", THIS, one=True), 2, 0, 24, 3),
        Place(connector_table("Its connectors", ITS_CONNECTORS), 5, 0, 24, 5),
        Place(power_chart(ITS_CONNECTORS, several), 10, 0, 12, 6),
        Place(battery_chart(ITS_CONNECTORS, several), 10, 12, 12, 6),
        Place(receipt_table("Last sessions of this charger", THIS), 16, 0, 24, 7),
        Place(rpc_table("Orders that wait (persistent RPC)", THIS), 23, 0, 24, 6),
    )


def _connector() -> tuple[Place, ...]:
    controls = [
        switch("Charging", THIS, "setCharging", state="tx_active"),
        button("Unlock", THIS, "unlock", None, "lock_open"),
        button("Available", THIS, "setAvailable", True, "check_circle", color="#2e7d32"),
        button("Unavailable", THIS, "setAvailable", False, "block"),
        button("Reset charger", ITS_CHARGER, "Reset", {"type": "Soft"}, "restart_alt",
               color="#c62828"),
    ]  # fmt: skip
    widths = [6, 4, 5, 5, 4]
    return (
        *[
            Place(one, 0, sum(widths[:number]), widths[number], 2)
            for number, one in enumerate(controls)
        ],
        Place(connector_table("This connector", THIS, opens=None, one=True), 2, 0, 24, 3),
        Place(charger_table("Its charger", ITS_CHARGER, opens="charger", one=True), 5, 0, 24, 3),
        Place(power_chart(THIS), 8, 0, 12, 6),
        Place(battery_chart(THIS), 8, 12, 12, 6),
        Place(
            receipt_table("Last sessions of this connector", THIS, connector=False), 14, 0, 24, 7
        ),
    )
