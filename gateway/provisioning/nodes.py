"""Rule nodes that ThingsBoard CE 3.9 to 4.4 have in common, each in its oldest form.

The server brings a node's configuration up to its own version when it is saved
(`configurationVersion` says from which), so one form serves all versions.
A configuration must not name a key that its class does not have: such a node never starts.
"""

from __future__ import annotations

from typing import Any

import attrs

_PACKAGE = "org.thingsboard.rule.engine."
_LOG = (
    "return '\\nIncoming message:\\n' + JSON.stringify(msg)"
    " + '\\nIncoming metadata:\\n' + JSON.stringify(metadata);"
)  # exactly ThingsBoard's default, which it logs without running a script
_KEEP = (
    "var details = {};\n"
    "if (metadata.prevAlarmDetails != null) { details = JSON.parse(metadata.prevAlarmDetails); }\n"
    "return details;"
)


@attrs.frozen
class Node:
    """version: of the configuration.  to: relation -> the nodes that it leads to."""

    name: str
    type: str
    configuration: dict[str, Any]
    version: int = 0
    to: dict[str, tuple[str, ...]] = attrs.field(factory=dict)
    description: str = ""


def by_message_type(name: str, **to: Any) -> Node:
    return _node(name, "filter.TbMsgTypeSwitchNode", {"version": 0}, **to)


def by_profile(name: str, **to: Any) -> Node:
    """Routes each message by the name of its device's profile."""
    return _node(name, "filter.TbDeviceTypeSwitchNode", {"version": 0}, **to)


def save_time_series(name: str, **to: Any) -> Node:
    settings = {"defaultTTL": 0, "useServerTs": False}
    return _node(name, "telemetry.TbMsgTimeseriesNode", settings, **to)


def save_client_attributes(name: str, **to: Any) -> Node:
    settings = {
        "scope": "CLIENT_SCOPE",
        "notifyDevice": False,
        "sendAttributesUpdatedNotification": False,
        "updateAttributesOnlyOnValueChange": True,
    }
    return _node(name, "telemetry.TbMsgAttributesNode", settings, version=2, **to)


def rpc_to_device(name: str, **to: Any) -> Node:
    return _node(name, "rpc.TbSendRPCRequestNode", {"timeoutInSeconds": 60}, **to)


def log(name: str, **to: Any) -> Node:
    settings = {"scriptLang": "TBEL", "jsScript": _LOG, "tbelScript": _LOG}
    return _node(name, "action.TbLogNode", settings, **to)


def has_key(name: str, key: str, **to: Any) -> Node:
    settings = {"messageNames": [key], "metadataNames": [], "checkAllKeys": True}
    return _node(name, "filter.TbCheckMessageNode", settings, **to)


def latest(name: str, keys: list[str], **to: Any) -> Node:
    """Puts the latest values of `keys`, as text, into the metadata under their own names."""
    settings = {
        "fetchTo": "METADATA",
        "clientAttributeNames": [],
        "sharedAttributeNames": [],
        "serverAttributeNames": [],
        "latestTsKeyNames": keys,
        "tellFailureIfAbsent": False,
        "getLatestValueWithTs": False,
    }
    return _node(name, "metadata.TbGetAttributesNode", settings, version=1, **to)


def condition(name: str, script: str, **to: Any) -> Node:
    """script: means the same in TBEL and in JavaScript."""
    settings = {"scriptLang": "TBEL", "jsScript": script, "tbelScript": script}
    return _node(name, "filter.TbJsFilterNode", settings, **to)


def transform(name: str, script: str, **to: Any) -> Node:
    """script: means the same in TBEL and in JavaScript."""
    settings = {"scriptLang": "TBEL", "jsScript": script, "tbelScript": script}
    return _node(name, "transform.TbTransformMsgNode", settings, **to)


def related_from(name: str, relation: str, device: str, **to: Any) -> Node:
    """Creates a relation from the device of that name to the originator, where there is none.

    Version 0 of the node reverses `direction`.
    """
    settings = {
        "direction": "TO",
        "relationType": relation,
        "entityType": "DEVICE",
        "entityNamePattern": device,
        "entityTypePattern": "",
        "createEntityIfNotExists": False,
        "changeOriginatorToRelatedEntity": False,
        "removeCurrentRelations": False,
    }
    return _node(name, "action.TbCreateRelationNode", settings, version=1, **to)


def create_alarm(name: str, alarm: str, severity: str, details: str, **to: Any) -> Node:
    settings = {
        "scriptLang": "TBEL",
        "alarmDetailsBuildJs": details,
        "alarmDetailsBuildTbel": details,
        "alarmType": alarm,
        "severity": severity,
        "dynamicSeverity": False,
        "propagate": False,
        "propagateToOwner": False,
        "propagateToTenant": False,
        "useMessageAlarmData": False,
        "overwriteAlarmDetails": True,
        "relationTypes": [],
    }
    return _node(name, "action.TbCreateAlarmNode", settings, **to)


def clear_alarm(name: str, alarm: str, **to: Any) -> Node:
    settings = {
        "scriptLang": "TBEL",
        "alarmDetailsBuildJs": _KEEP,
        "alarmDetailsBuildTbel": _KEEP,
        "alarmType": alarm,
    }
    return _node(name, "action.TbClearAlarmNode", settings, **to)


def details(**values: str) -> str:
    """A script that builds an alarm's details.  values: expressions; absent ones are left out."""
    lines = [
        f"if ({value} != null) {{ details.{key} = {value}; }}" for key, value in values.items()
    ]
    return "\n".join(["var details = {};", *lines, "return details;"])


def _node(
    name: str,
    kind: str,
    configuration: dict[str, Any],
    *,
    to: dict[str, str | tuple[str, ...]] | None = None,
    version: int = 0,
    description: str = "",
) -> Node:
    where = {
        relation: (names,) if isinstance(names, str) else names
        for relation, names in (to or {}).items()
    }
    return Node(name, _PACKAGE + kind, configuration, version, where, description)
