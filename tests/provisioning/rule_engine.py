"""A rule engine for the nodes of our chain: what ThingsBoard does with the gateway's telemetry.

It runs the installed metadata, scripts included: those are so simple that they become Python by
replacing a few words.  A script that is not simple enough raises.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import attrs

from gateway.provisioning import rule_chain

from .rule_nodes import PACKAGE

TELEMETRY, ATTRIBUTES = "Post telemetry", "Post attributes"
INACTIVITY, RPC = "Inactivity Event", "RPC Request to Device"
TOKENS = re.compile(
    r"(?P<path>(?:msg|metadata)(?:\.\w+)+)|(?P<text>'[^'\\]*')|(?P<number>\d+)"
    r"|(?P<sign>&&|\|\||==|!=|>)|(?P<word>true|false|null)|(?P<blank>\s+)"
)
WORDS = {"&&": "and", "||": "or", "true": "True", "false": "False", "null": "None"}
UP_TO = re.compile(
    r"metadata\.(?P<new>\w+) = metadata\.(?P<key>\w+)"
    r"\.substring\(0, metadata\.(?P=key)\.indexOf\('(?P<mark>[^'])'\)\);\n"
    r"return \{msg: msg, metadata: metadata, msgType: msgType\};"
)
DETAIL = re.compile(r"if \((?P<test>.+) != null\) \{ details\.(?P<key>\w+) = (?P<value>.+); \}")


def evaluated(expression: str, msg: Any, metadata: Any) -> Any:
    """The value of an expression that TBEL and JavaScript read alike.  Raises ValueError."""
    python, place = "", 0
    while place < len(expression):
        token = TOKENS.match(expression, place)
        if token is None:
            raise ValueError(f"not plain: {expression[place:]!r}")
        place = token.end()
        if token["path"]:
            python += f"at({token[0]!r})"
        else:
            python += f" {WORDS.get(token[0], token[0])} "

    def at(path: str) -> Any:
        root, *keys = path.split(".")
        value = {"msg": msg, "metadata": metadata}[root]
        for depth, key in enumerate(keys):
            if value is None:
                raise ValueError(f"null has no {key}: {path} ({depth})")
            value = value.get(key)
        return value

    return eval(python, {"__builtins__": {}, "at": at})


def returned(script: str) -> str:
    found = re.fullmatch(r"return ([^;]+);", script)
    assert found, f"not one return: {script}"
    return found[1]


@attrs.define
class Engine:
    """alarms: (device, alarm type) -> (severity, details), the active ones.

    history: (device, alarm type, "raised" or "cleared").  saved: (device, ts, values).
    relations: (from, type, to).  devices: those that a relation may lead from.
    """

    chain: rule_chain.Metadata = attrs.field(factory=rule_chain.wanted)
    latest: dict[str, dict[str, tuple[int, Any]]] = attrs.field(factory=dict)
    saved: list[tuple[str, int, Any]] = attrs.field(factory=list)
    attributes: list[tuple[str, Any]] = attrs.field(factory=list)
    alarms: dict[tuple[str, str], tuple[str, Any]] = attrs.field(factory=dict)
    history: list[tuple[str, str, str]] = attrs.field(factory=list)
    sent: list[tuple[str, Any]] = attrs.field(factory=list)
    relations: set[tuple[str, str, str]] = attrs.field(factory=set)
    devices: set[str] = attrs.field(factory=lambda: {"CP-1"})
    failures: list[str] = attrs.field(factory=list)

    def take(self, kind: str, device: str, profile: str, msg: Any, ts: int = 0) -> None:
        metadata = {"deviceName": device, "deviceType": profile, "ts": str(ts)}
        self._visit(self.chain.first, kind, msg, metadata)

    def _visit(self, name: str, kind: str, msg: Any, metadata: Mapping[str, str]) -> None:
        node = self.chain.nodes[name]
        for relation, out in self._run(node, kind, msg, dict(metadata)):
            for start, how, end in sorted(self.chain.connections):
                if (start, how) == (name, relation):
                    self._visit(end, kind, msg, out)

    def _run(self, node: Any, kind: str, msg: Any, metadata: dict[str, str]) -> Any:
        device, settings = metadata["deviceName"], node["configuration"]
        match node["type"].removeprefix(PACKAGE):
            case "filter.TbMsgTypeSwitchNode":
                yield kind, metadata
            case "filter.TbDeviceTypeSwitchNode":
                yield metadata["deviceType"], metadata
            case "telemetry.TbMsgTimeseriesNode":
                yield self._save(device, int(metadata["ts"]), msg), metadata
            case "telemetry.TbMsgAttributesNode":
                self.attributes.append((device, msg))
                yield "Success", metadata
            case "rpc.TbSendRPCRequestNode":
                self.sent.append((device, msg))
            case "filter.TbCheckMessageNode":
                yield str(all(key in msg for key in settings["messageNames"])), metadata
            case "metadata.TbGetAttributesNode":
                yield "Success", metadata | self._latest(device, settings["latestTsKeyNames"])
            case "filter.TbJsFilterNode":
                yield from self._filter(settings, msg, metadata)
            case "transform.TbTransformMsgNode":
                yield "Success", metadata | transformed(settings, metadata)
            case "action.TbCreateRelationNode":
                yield self._relate(device, settings, metadata), metadata
            case "action.TbCreateAlarmNode":
                self._raise(device, settings, msg, metadata)
            case "action.TbClearAlarmNode":
                if self.alarms.pop((device, settings["alarmType"]), None) is not None:
                    self.history.append((device, settings["alarmType"], "cleared"))
            case "action.TbLogNode":
                self.failures.append(f"{device}: {msg}")
            case other:
                raise AssertionError(f"no such node: {other}")

    def _filter(self, settings: Any, msg: Any, metadata: dict[str, str]) -> Any:
        assert settings["jsScript"] == settings["tbelScript"]
        try:
            value = evaluated(returned(settings["tbelScript"]), msg, metadata)
        except (ValueError, TypeError):
            yield "Failure", metadata
        else:
            yield str(bool(value)), metadata

    def _relate(self, device: str, settings: Any, metadata: Mapping[str, str]) -> str:
        """Version 1: TO leads from the named entity to the originator."""
        pattern = re.fullmatch(r"\$\{(\w+)\}", settings["entityNamePattern"])
        assert pattern
        other = metadata[pattern[1]]
        if other not in self.devices:
            return "Failure"
        ends = (other, device) if settings["direction"] == "TO" else (device, other)
        self.relations.add((ends[0], settings["relationType"], ends[1]))
        return "Success"

    def _save(self, device: str, ts: int, msg: Any) -> str:
        """The latest value only moves forward (SQL_TS_UPDATE_BY_LATEST_TIMESTAMP)."""
        if not msg:
            return "Failure"
        self.saved.append((device, ts, msg))
        known = self.latest.setdefault(device, {})
        for key, value in msg.items():
            if key not in known or known[key][0] <= ts:
                known[key] = (ts, value)
        return "Success"

    def _latest(self, device: str, keys: list[str]) -> dict[str, str]:
        known = self.latest.get(device, {})
        return {key: as_text(known[key][1]) for key in keys if key in known}

    def _raise(self, device: str, settings: Any, msg: Any, metadata: dict[str, str]) -> None:
        first, *lines, last = settings["alarmDetailsBuildTbel"].split("\n")
        assert settings["alarmDetailsBuildJs"] == settings["alarmDetailsBuildTbel"]
        assert (first, last) == ("var details = {};", "return details;")
        details = {}
        for line in lines:
            part = DETAIL.fullmatch(line)
            assert part, f"not plain: {line}"
            if evaluated(part["test"], msg, metadata) is not None:
                details[part["key"]] = evaluated(part["value"], msg, metadata)
        if (device, settings["alarmType"]) not in self.alarms:
            self.history.append((device, settings["alarmType"], "raised"))
        self.alarms[device, settings["alarmType"]] = (settings["severity"], details)


def transformed(settings: Any, metadata: Mapping[str, str]) -> dict[str, str]:
    assert settings["jsScript"] == settings["tbelScript"]
    script = UP_TO.fullmatch(settings["tbelScript"])
    assert script, f"not plain: {settings['tbelScript']}"
    return {script["new"]: metadata[script["key"]].partition(script["mark"])[0]}


def as_text(value: Any) -> str:
    """As KvEntry.getValueAsString."""
    return value if isinstance(value, str) else json.dumps(value)
