"""The dashboards: what they name exists, and what they show is published."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from tb_ce_client.models.dashboard import Dashboard

from gateway.provisioning.dashboards import dashboards
from gateway.provisioning.dashboards.devices import Alias, Filter
from gateway.provisioning.dashboards.frame import Place, State, dashboard
from gateway.provisioning.dashboards.grids import device_table
from gateway.provisioning.dashboards.windows import last
from gateway.provisioning.viewer import read_only

from .dashboard_linter import lint

ALL = {one["title"]: one for one in dashboards()}


@pytest.mark.parametrize("title", ALL)
def test_nothing_is_wrong_with_a_dashboard(title):
    assert lint(ALL[title]) == []


@pytest.mark.parametrize("title", ALL)
def test_nothing_is_wrong_with_what_those_see_who_only_watch(title):
    watched = read_only(ALL[title])
    assert lint(watched) == []
    orders = {"system.single_switch", "system.command_button", "system.control_widgets."}
    message = json.dumps(watched)
    assert not [fqn for fqn in orders if fqn in message]


def test_there_are_the_two_of_the_prototype():
    assert list(ALL) == ["EV charging", "EV sessions"]


def test_they_are_the_same_every_time():
    assert json.dumps(dashboards(), sort_keys=True) == json.dumps(dashboards(), sort_keys=True)


def test_each_call_gives_dashboards_of_its_own():
    dashboards()[0]["configuration"].clear()
    assert dashboards()[0]["configuration"]


@pytest.mark.parametrize("title", ALL)
def test_it_is_json_and_survives_it(title):
    text = json.dumps(ALL[title], allow_nan=False)
    assert json.loads(text) == ALL[title]


@pytest.mark.parametrize("title", ALL)
def test_thingsboards_own_client_takes_it_and_drops_nothing(title):
    given = ALL[title]
    taken = Dashboard.from_dict(given).to_dict()
    assert {key: taken.get(key) for key in given} == given


# --- the linter bites ----------------------------------------------------------------------------


@pytest.fixture
def broken() -> dict[str, Any]:
    return copy.deepcopy(ALL["EV charging"])


def widget(given: dict[str, Any], title: str) -> dict[str, Any]:
    return next(
        one for one in given["configuration"]["widgets"].values() if one["config"]["title"] == title
    )


def places(given: dict[str, Any], state: str = "default") -> dict[str, Any]:
    return given["configuration"]["states"][state]["layouts"]["main"]["widgets"]


def keys(given: dict[str, Any], title: str) -> list[dict[str, Any]]:
    return widget(given, title)["config"]["datasources"][0]["dataKeys"]


def found(given: dict[str, Any], complaint: str) -> bool:
    return any(complaint in message for message in lint(given))


def test_it_finds_a_widget_that_ce_does_not_have(broken):
    widget(broken, "Connectors")["typeFullFqn"] = "system.html_container"
    assert found(broken, "in no stock")


def test_it_finds_a_widget_of_a_custom_bundle(broken):
    widget(broken, "Connectors")["typeFullFqn"] = "tenant.cards.entities_table"
    assert found(broken, "in no stock")


def test_it_finds_a_widget_of_another_type(broken):
    widget(broken, "Connectors")["type"] = "timeseries"
    assert found(broken, "its type is 'latest'")


def test_it_finds_a_setting_that_the_widget_does_not_know(broken):
    widget(broken, "Connectors")["config"]["settings"]["enableSaerch"] = True
    assert found(broken, "knows no setting 'enableSaerch'")


@pytest.mark.parametrize("group", ["initialState", "onUpdateState", "background"])
def test_it_finds_a_group_of_settings_that_is_not_whole(broken, group):
    widget(broken, "Charging")["config"]["settings"][group].popitem()
    assert found(broken, f"setting {group!r} is not whole")


def test_it_finds_an_alias_that_is_not_there(broken):
    widget(broken, "Connectors")["config"]["datasources"][0]["entityAliasId"] = "x"
    assert found(broken, "no alias 'x'")


def test_it_finds_an_alias_that_nobody_uses(broken):
    broken["configuration"]["entityAliases"]["xyz"] = {"id": "xyz", "alias": "X", "filter": {}}
    assert found(broken, "nobody uses xyz")


def test_it_finds_an_alias_that_means_nothing_on_its_page(broken):
    """The device of the page, on the page that is opened for none."""
    here = widget(broken, "This charger")["config"]["datasources"][0]["entityAliasId"]
    widget(broken, "Connectors")["config"]["datasources"][0]["entityAliasId"] = here
    assert found(broken, "means nothing on this page")


def test_it_finds_a_filter_that_is_not_there(broken):
    widget(broken, "Connectors")["config"]["datasources"][0]["filterId"] = "x"
    assert found(broken, "no filter 'x'")


def test_it_finds_a_filter_by_what_is_not_published(broken):
    for one in broken["configuration"]["filters"].values():
        one["keyFilters"][0]["key"]["key"] = "statsu"
    assert found(broken, "has the key 'statsu'")


def test_it_finds_a_page_that_nothing_opens(broken):
    widget(broken, "Chargers")["config"]["actions"] = {}
    widget(broken, "Its charger")["config"]["actions"] = {}
    assert found(broken, "charger: nothing opens it")


def test_it_finds_a_click_that_leads_nowhere(broken):
    action = widget(broken, "Chargers")["config"]["actions"]["rowClick"][0]
    action["targetDashboardStateId"] = "chargr"
    assert found(broken, "opens 'chargr'")


def test_it_finds_a_click_that_forgets_the_device(broken):
    widget(broken, "Chargers")["config"]["actions"]["rowClick"][0]["setEntityId"] = False
    assert found(broken, "without saying for which device")


def test_it_finds_two_roots(broken):
    broken["configuration"]["states"]["charger"]["root"] = True
    assert found(broken, "one state is the root")


def test_it_finds_widgets_that_overlap(broken):
    first, second, *_ = places(broken).values()
    second["col"] = first["col"] + first["sizeX"] - 1
    assert found(broken, "overlap")


def test_it_finds_a_widget_that_sticks_out(broken):
    next(iter(places(broken).values()))["col"] = 23
    assert found(broken, "sticks out")


def test_it_finds_a_place_without_a_widget(broken):
    places(broken)["x"] = {"row": 90, "col": 0, "sizeX": 1, "sizeY": 1}
    assert found(broken, "there is no such widget")


def test_it_finds_a_widget_without_a_place(broken):
    places(broken).popitem()
    assert found(broken, "placed in no state")


def test_it_finds_a_key_that_is_not_published(broken):
    keys(broken, "Connectors")[4]["name"] = "power_kw"
    assert found(broken, "no EV connector has the key 'power_kw'")


def test_it_finds_a_key_of_another_kind_of_device(broken):
    keys(broken, "This charger")[0]["name"] = "power_w"
    assert found(broken, "no EV charger has the key 'power_w'")


def test_it_finds_a_key_that_only_one_of_two_kinds_has(broken):
    alias = widget(broken, "Connectors")["config"]["datasources"][0]["entityAliasId"]
    both = broken["configuration"]["entityAliases"][alias]["filter"]["deviceTypes"]
    both.append("EV charger")
    assert found(broken, "no EV charger has the key 'tx_active'")


def test_it_finds_telemetry_that_is_taken_for_an_attribute(broken):
    keys(broken, "This charger")[0]["type"] = "attribute"
    assert found(broken, "no EV charger has the key 'connected' (attribute)")


def test_it_finds_a_sum_of_words():
    broken = copy.deepcopy(ALL["EV sessions"])
    keys(broken, "Per charger")[0]["name"] = "receipt"
    assert found(broken, "reckons with 'receipt', which is json")


def test_it_finds_a_function_that_reads_a_column_which_is_not_there(broken):
    keys(broken, "Connectors")[1]["label"] = "Sesion"
    assert found(broken, "reads column 'Session'")


def test_it_finds_a_function_that_is_not_used(broken):
    keys(broken, "Connectors")[3]["settings"]["useCellStyleFunction"] = False
    assert found(broken, "disagree")


def test_it_finds_text_of_a_charge_point_that_a_browser_would_run(broken):
    settings = keys(broken, "Connectors")[-1]["settings"]
    settings.update(useCellContentFunction=False, cellContentFunction="")
    assert found(broken, "'Error' shows text as it was written")


def test_it_finds_two_columns_of_the_same_name(broken):
    first, second, *_ = keys(broken, "Connectors")
    second["label"] = first["label"]
    assert found(broken, "two columns with the same label")


def test_it_finds_a_label_that_would_be_read_as_a_path(broken):
    keys(broken, "Connectors")[4]["label"] = "max. power"
    assert found(broken, "a dot in the label")


@pytest.mark.parametrize(
    ("title", "group", "method"),
    [
        ("Charging", "onUpdateState", "RemoteStartTransaction"),
        ("Reset", "onClickState", "reset"),
        ("Unlock", "onClickState", "UnlockConnector"),
    ],
)
def test_it_finds_a_method_that_its_device_does_not_obey(broken, title, group, method):
    widget(broken, title)["config"]["settings"][group]["executeRpc"]["method"] = method
    assert found(broken, f"obeys {method!r}")


def test_it_finds_a_switch_that_reads_what_is_not_published(broken):
    widget(broken, "Charging")["config"]["settings"]["initialState"]["getTimeSeries"]["key"] = "on"
    assert found(broken, "has the key 'on'")


def test_it_finds_a_switch_that_asks_the_device(broken):
    """The gateway answers no `getState`, and a switch that asks does not hear what changes."""
    widget(broken, "Charging")["config"]["settings"]["initialState"]["action"] = "GET_ATTRIBUTE"
    assert found(broken, "is not looked into")


def test_it_finds_a_widget_without_a_time(broken):
    widget(broken, "Connectors")["config"]["useDashboardTimewindow"] = False
    assert found(broken, "has no time window")


def test_it_finds_a_widget_about_nothing(broken):
    widget(broken, "Connectors")["config"]["datasources"] = []
    assert found(broken, "about no device")


# --- the frame -----------------------------------------------------------------------------------


def test_widgets_of_a_page_cannot_share_a_title_for_their_ids_come_from_it():
    table = device_table("Same", Alias("A", {}), [], only=Filter("F", {}))
    page = State("default", "P", (Place(table, 0, 0, 24, 1), Place(table, 1, 0, 24, 1)))
    with pytest.raises(ValueError, match="same title"):
        dashboard("D", "", last(1, aggregation="NONE"), [page])
