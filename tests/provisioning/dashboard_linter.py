"""Finds faults in a dashboard, without a ThingsBoard to try it on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

from gateway.northbound.telemetry_keys import (
    ATTRIBUTES,
    CHARGE_POINT_TYPE,
    CONNECTOR_TYPE,
    TELEMETRY,
)
from gateway.southbound.commands import CONNECTOR_METHODS
from gateway.southbound.messages import CENTRAL_SYSTEM_ACTIONS

DATA = Path(__file__).parents[1] / "data" / "thingsboard" / "widgets.json"
WIDGETS = {
    name: about for name, about in json.loads(DATA.read_text("utf-8")).items() if name != "about"
}

FIELDS = {"name", "type", "label", "createdTime"}  # of every device
SERVER_ATTRIBUTES = {"active", "lastActivityTime", "inactivityAlarmTime"}
ALARM_FIELDS = {"createdTime", "originator", "type", "severity", "status", "assignee"}
METHODS = {CHARGE_POINT_TYPE: CENTRAL_SYSTEM_ACTIONS, CONNECTOR_TYPE: set(CONNECTOR_METHODS)}
RELATED = {("FROM", CHARGE_POINT_TYPE): CONNECTOR_TYPE, ("TO", CONNECTOR_TYPE): CHARGE_POINT_TYPE}
COLUMNS = 24

Kinds = frozenset[str]


def lint(dashboard: dict[str, Any]) -> list[str]:
    """What is wrong, each with where; [] for a dashboard that may be shown to people."""
    return list(Linter(dashboard).complaints())


class Linter:
    def __init__(self, dashboard: dict[str, Any]) -> None:
        configuration = dashboard["configuration"]
        self.widgets: dict[str, Any] = configuration["widgets"]
        self.states: dict[str, Any] = configuration["states"]
        self.aliases: dict[str, Any] = configuration["entityAliases"]
        self.filters: dict[str, Any] = configuration["filters"]
        self.opened_for = self._opened_for()

    def complaints(self) -> Iterator[str]:
        roots = [name for name, state in self.states.items() if state["root"]]
        if len(roots) != 1:
            yield f"one state is the root, not {roots}"
        placed = [name for state in self.states.values() for name in self._placed(state)]
        yield from (f"{name}: placed in no state" for name in set(self.widgets) - set(placed))
        for name, state in self.states.items():
            if not state["root"] and not self.opened_for[name]:
                yield f"{name}: nothing opens it"
            yield from (f"{name}: {complaint}" for complaint in self._of_state(name, state))
        used = json.dumps(self.widgets)
        for kind in ("aliases", "filters"):
            yield from (
                f"{kind}: nobody uses {one}" for one in getattr(self, kind) if one not in used
            )

    # --- a page ----------------------------------------------------------------------------------

    @staticmethod
    def _placed(state: dict[str, Any]) -> dict[str, Any]:
        return state["layouts"]["main"]["widgets"]

    def _of_state(self, name: str, state: dict[str, Any]) -> Iterator[str]:
        placed = self._placed(state)
        if state["layouts"]["main"]["gridSettings"]["columns"] != COLUMNS:
            yield "not of 24 columns"
        for ident, place in placed.items():
            if place["col"] < 0 or place["col"] + place["sizeX"] > COLUMNS:
                yield f"{ident}: sticks out of the grid"
            if ident not in self.widgets:
                yield f"{ident}: placed, but there is no such widget"
        for (one, a), (other, b) in combinations(placed.items(), 2):
            apart = (
                a["col"] + a["sizeX"] <= b["col"]
                or b["col"] + b["sizeX"] <= a["col"]
                or a["row"] + a["sizeY"] <= b["row"]
                or b["row"] + b["sizeY"] <= a["row"]
            )
            if not apart:
                yield f"{one} and {other} overlap"
        for ident in placed.keys() & self.widgets.keys():
            widget = self.widgets[ident]
            title = widget["config"]["title"]
            yield from (f"{title}: {complaint}" for complaint in self._of_widget(name, widget))

    def _of_widget(self, state: str, widget: dict[str, Any]) -> Iterator[str]:
        yield from self._of_type(widget)
        config = widget["config"]
        sources = [*config["datasources"]]
        if "alarmSource" in config:
            sources.append(config["alarmSource"])
        if "targetDevice" in config:
            sources.append({**config["targetDevice"], "dataKeys": []})
        if not sources:
            yield "about no device"
        for source in sources:
            yield from self._of_source(state, source)
        target = config.get("targetDevice")
        if target:
            kinds = self._kinds(target["entityAliasId"], state)
            yield from self._of_settings(config["settings"], kinds)
        for actions in config["actions"].values():
            for action in actions:
                if action["targetDashboardStateId"] not in self.states:
                    yield f"opens {action['targetDashboardStateId']!r}, which is no state"
                if not action["setEntityId"]:
                    yield "opens a page without saying for which device"
        timed = config["useDashboardTimewindow"] or "timewindow" in config
        if not timed and widget["type"] != "rpc":
            yield "has no time window"

    @staticmethod
    def _of_type(widget: dict[str, Any]) -> Iterator[str]:
        scope, _, fqn = widget["typeFullFqn"].partition(".")
        about = WIDGETS.get(fqn)
        if scope != "system" or about is None:
            yield f"{widget['typeFullFqn']!r} is in no stock of ThingsBoard CE"
            return
        if widget["type"] != about["type"]:
            yield f"its type is {about['type']!r}, not {widget['type']!r}"
        settings = widget["config"]["settings"]
        yield from (f"knows no setting {key!r}" for key in settings if key not in about["settings"])
        for group, keys in about.get("whole", {}).items():
            missing = [key for key in keys if key not in settings.get(group, {})]
            if missing:
                yield f"setting {group!r} is not whole: {missing}"

    # --- what it reads ---------------------------------------------------------------------------

    def _of_source(self, state: str, source: dict[str, Any]) -> Iterator[str]:
        alias = source["entityAliasId"]
        if alias not in self.aliases:
            yield f"no alias {alias!r}"
            return
        kinds = self._kinds(alias, state)
        if not kinds:
            yield f"alias {self.aliases[alias]['alias']!r} means nothing on this page"
        only = source.get("filterId")
        if only is not None and only not in self.filters:
            yield f"no filter {only!r}"
        elif only is not None:
            for one in self.filters[only]["keyFilters"]:
                yield from self._of_key({"type": "timeseries", "name": one["key"]["key"]}, kinds)
                if one["key"]["type"] != "TIME_SERIES":
                    yield f"filters by {one['key']['type']}"
        labels = [key["label"] for key in source["dataKeys"]]
        if len(set(labels)) != len(labels):
            yield f"two columns with the same label: {labels}"
        for key in source["dataKeys"]:
            yield from self._of_key(key, kinds)
            yield from self._of_functions(key, labels)
            yield from self._of_strangers(key, kinds)
            if "." in key["label"]:  # ThingsBoard would read a path (getDescendantProp)
                yield f"a dot in the label {key['label']!r}"

    def _of_key(self, key: dict[str, Any], kinds: Kinds) -> Iterator[str]:
        name = key["name"]
        for kind in kinds:
            known = {
                "timeseries": set(TELEMETRY.get(kind, ())),
                "attribute": set(ATTRIBUTES.get(kind, ())) | SERVER_ATTRIBUTES,
                "entityField": FIELDS,
                "alarm": ALARM_FIELDS,
                "count": {"count"},
            }[key["type"]]
            if name not in known:
                yield f"no {kind} has the key {name!r} ({key['type']})"
            elif key.get("aggregationType") or key.get("usePostProcessing"):
                defined = TELEMETRY[kind][name].kind
                if defined not in ("int", "number"):
                    yield f"reckons with {name!r}, which is {defined}"

    @staticmethod
    def _of_functions(key: dict[str, Any], labels: list[str]) -> Iterator[str]:
        settings = key["settings"]
        for which in ("cellContentFunction", "cellStyleFunction"):
            body = settings.get(which, "")
            switch = "use" + which[0].upper() + which[1:]
            if bool(body) != settings.get(switch, False):
                yield f"{key['label']!r}: {switch} and {which} disagree"
            for named in set(re.findall(r"\bentity\.(\w+)", body)) - set(labels):
                yield f"{key['label']!r}: reads column {named!r}, which is not there"

    @staticmethod
    def _of_strangers(key: dict[str, Any], kinds: Kinds) -> Iterator[str]:
        """Cells are HTML: what a charge point wrote must be escaped."""
        settings = key["settings"]
        if settings.get("defaultColumnVisibility") != "visible":
            return
        tables = {"timeseries": TELEMETRY, "attribute": ATTRIBUTES}.get(key["type"], {})
        defined = [tables[kind][key["name"]].kind for kind in kinds if key["name"] in tables[kind]]
        harmless = re.search("charCodeAt|ctx.date", settings["cellContentFunction"])
        if {"text", "json"} & set(defined) and not harmless:
            yield f"{key['label']!r} shows text as it was written"

    # --- what it orders --------------------------------------------------------------------------

    def _of_settings(self, settings: dict[str, Any], kinds: Kinds) -> Iterator[str]:
        for part in settings.values():
            if not isinstance(part, dict) or "action" not in part:
                continue
            if part["action"] == "EXECUTE_RPC":
                method = part["executeRpc"]["method"]
                yield from (
                    f"no {kind} obeys {method!r}" for kind in kinds if method not in METHODS[kind]
                )
            elif part["action"] == "GET_TIME_SERIES":
                name = part["getTimeSeries"]["key"]
                yield from self._of_key({"type": "timeseries", "name": name}, kinds)
            else:
                yield f"action {part['action']!r} is not looked into"

    # --- whom an alias means ---------------------------------------------------------------------

    def _kinds(self, alias: str, state: str) -> Kinds:
        where = self.aliases[alias]["filter"]
        match where["type"]:
            case "deviceType":
                return frozenset(where["deviceTypes"])
            case "stateEntity":
                return self.opened_for[state]
            case "relationsQuery":
                roots = self.opened_for[state]
                found = {RELATED.get((where["direction"], root)) for root in roots}
                return frozenset(kind for kind in found if kind is not None)
        return frozenset()

    def _opened_for(self) -> dict[str, Kinds]:
        """Page -> the types of devices that it is opened for; pages open pages, so again."""
        self.opened_for: dict[str, Kinds] = dict.fromkeys(self.states, frozenset())
        for _ in self.states:
            for name, state in self.states.items():
                for ident in self._placed(state).keys() & self.widgets.keys():
                    config = self.widgets[ident]["config"]
                    for action in config["actions"].get("rowClick", []):
                        target = action["targetDashboardStateId"]
                        sources = [one["entityAliasId"] for one in config["datasources"]]
                        kinds = [self._kinds(one, name) for one in sources if one in self.aliases]
                        if target in self.opened_for:
                            self.opened_for[target] = self.opened_for[target].union(*kinds)
        return self.opened_for
