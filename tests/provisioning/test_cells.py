"""The JavaScript in cells of tables, run as ThingsBoard's browser code runs it."""

from __future__ import annotations

import json
from typing import Any

import dukpy
import pytest

from gateway.northbound.telemetry_keys import ATTRIBUTES, TELEMETRY
from gateway.provisioning.dashboards import cells, dashboards

NASTY = "<img src=x onerror=alert(1)>\"'&"
HARMLESS = "&#60;img src=x onerror=alert(1)&#62;&#34;&#39;&#38;"
CHARGING = {"Session": "true", "Connection": "true", "Currency": "EUR"}
IDLE = {"Session": "false", "Connection": "true", "Currency": "EUR"}
RECEIPT = {
    "id_tag": "04A1",
    "currency": "EUR",
    "started_at": "2026-03-01T12:00:00Z",
    "flags": ["meter_reset", "needs_review"],
    "needs_review": True,
}


BROWSER = dukpy.JSInterpreter()
VALUES = {  # as the browser has them: numbers as numbers, the rest as text, "" where there is none
    "bool": ("true", "false"),
    "int": (0, 1_772_366_400_250),
    "number": (0, 1.5),
    "text": ("text", NASTY),
    "json": ("{}", json.dumps(RECEIPT)),
}


def run(body: str, value: Any, entity: dict[str, Any] | None = None) -> Any:
    return BROWSER.evaljs(
        "(function (value, entity, ctx) {" + body + "})(dukpy.value, dukpy.entity, {date: "
        "{transform: function (at, format) { return at + ' as ' + format; }}})",
        value=value,
        entity=entity or {},
    )


def functions() -> list[tuple[str, str, str]]:
    """Every function of the dashboards: (which, kind of its key, body)."""
    every = {key.name: key.kind for table in TELEMETRY.values() for key in table.values()}
    every |= {key.name: key.kind for table in ATTRIBUTES.values() for key in table.values()}
    found = {
        (which, every[key["name"]], key["settings"][which]): None
        for one in dashboards()
        for widget in one["configuration"]["widgets"].values()
        for source in widget["config"]["datasources"]
        for key in source["dataKeys"]
        for which in ("cellContentFunction", "cellStyleFunction")
        if key["settings"].get(which)
    }
    return list(found)


@pytest.mark.parametrize(("which", "kind", "body"), functions())
def test_a_function_bears_whatever_is_there(which, kind, body):
    for value in ("", *VALUES[kind]):
        for entity in (CHARGING, IDLE, {"Session": "", "Connection": ""}):
            shown = run(body, value, entity)
            if which == "cellStyleFunction":  # anything else is complained of, in the log
                assert isinstance(shown, dict)
            else:
                assert isinstance(shown, str | int | float)
                assert not {"undefined", "null", "NaN"} & set(str(shown).split())


@pytest.mark.parametrize(
    ("body", "value", "shown"),
    [
        (cells.SESSION_KWH, 12_345.6, "12.35"),
        (cells.SESSION_KWH, 0, "0.00"),
        (cells.SESSION_PERCENT, 80, 80),
        (cells.SESSION_MINUTES, 119, 2),
        (cells.SESSION_SINCE, 1_772_366_400_250, "1772366400250 as yyyy-MM-dd HH:mm"),
        (cells.SESSION_TAG, '{"id_tag":"04A1"}', "04A1"),
    ],
)
def test_what_belongs_to_a_session_is_shown_while_it_lasts(body, value, shown):
    """ThingsBoard keeps the latest values for ever, those of a session that has ended too."""
    assert run(body, value, CHARGING) == shown
    assert run(body, value, IDLE) == ""
    assert run(body, value, {"Session": True}) == shown


def test_the_cost_of_a_session_is_shown_while_it_lasts():
    assert str(run(cells.SESSION_COST, 1.5, CHARGING))
    assert run(cells.SESSION_COST, 1.5, IDLE) == ""
    assert "style: 'currency', currency: entity.Currency" in cells.SESSION_COST


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (cells.TEXT, NASTY),
        (cells.STATUS, NASTY),
        (cells.SESSION_TAG, json.dumps({"id_tag": NASTY})),
        (cells.of_json("id_tag"), json.dumps({"id_tag": NASTY})),
        (cells.of_json("firmware"), json.dumps({"firmware": NASTY})),
        (cells.HARDWARE, json.dumps({"vendor": NASTY})),
        (cells.RECEIPT_FLAGS, json.dumps({"flags": [NASTY]})),
    ],
)
def test_what_a_charge_point_writes_is_read_and_never_run(body, value):
    assert run(body, value, CHARGING) == HARMLESS


def test_a_status_says_that_nobody_can_ask_whether_it_still_holds():
    assert run(cells.STATUS, "Available", CHARGING) == "Available"
    assert run(cells.STATUS, "Available", {"Connection": "false"}) == "Available (offline)"
    assert run(cells.STATUS, "Available", {"Connection": ""}) == "Available"


def test_power_is_not_shown_of_who_cannot_be_asked():
    assert run(cells.POWER, 7_400, CHARGING) == "7.4"
    assert run(cells.POWER, 0, IDLE) == "0.0"
    assert run(cells.POWER, "", IDLE) == ""
    assert run(cells.POWER, 7_400, {"Connection": "false"}) == ""


def test_each_status_has_a_colour_of_its_kind():
    def colour(status: str, connection: str = "true") -> str:
        return run(cells.STATUS_COLOUR, status, {"Connection": connection})["color"]

    assert len({colour(one) for one in ("Available", "Charging", "Faulted", "Unavailable")}) == 4
    assert colour("SuspendedEV") == colour("SuspendedEVSE")
    assert colour("whatever") == "#424242"
    assert colour("Faulted", "false") == "#9e9e9e"


def test_a_charger_is_online_or_offline_or_is_unknown():
    assert [run(cells.ONLINE, value) for value in ("true", "false", "")] == [
        "online",
        "offline",
        "",
    ]


def test_a_receipt_shows_what_its_columns_are_named_for():
    text = json.dumps(RECEIPT)
    assert run(cells.RECEIPT_START, text) == "2026-03-01T12:00:00Z as yyyy-MM-dd HH:mm"
    assert run(cells.of_json("currency"), text) == "EUR"
    assert run(cells.RECEIPT_FLAGS, text) == "meter_reset, needs_review"
    assert run(cells.RECEIPT_FLAGS_COLOUR, text) == {"color": "#c62828"}
    assert run(cells.RECEIPT_FLAGS_COLOUR, "{}") == {}
    assert run(cells.of_json("currency"), '{"currency":null}') == ""


def test_no_function_is_longer_than_a_person_reads_at_once():
    assert max(len(body.splitlines()) for _, _, body in functions()) <= 3
