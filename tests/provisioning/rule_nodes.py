"""The rule nodes of ThingsBoard that we use: their configuration's keys, version by version.

A key that the class does not have makes `TbNodeUtils.convert` fail; one that is missing is the
type's default, unless it is @NotNull.  A configuration of an older version is upgraded on saving.
"""

from __future__ import annotations

from typing import Any

PACKAGE = "org.thingsboard.rule.engine."
ALARM = {"scriptLang", "alarmDetailsBuildJs", "alarmDetailsBuildTbel", "alarmType"}
EVERY_MESSAGE = {"type": "ON_EVERY_MESSAGE"}
KEYS: dict[str, set[str]] = {
    "filter.TbMsgTypeSwitchNode": {"version"},
    "filter.TbDeviceTypeSwitchNode": {"version"},
    "filter.TbCheckMessageNode": {"messageNames", "metadataNames", "checkAllKeys"},
    "filter.TbJsFilterNode": {"scriptLang", "jsScript", "tbelScript"},
    "action.TbLogNode": {"scriptLang", "jsScript", "tbelScript"},
    "transform.TbTransformMsgNode": {"scriptLang", "jsScript", "tbelScript"},
    "action.TbCreateRelationNode": {
        "direction",
        "relationType",
        "entityType",
        "entityNamePattern",
        "entityTypePattern",
        "createEntityIfNotExists",
        "changeOriginatorToRelatedEntity",
        "removeCurrentRelations",
    },
    "action.TbClearAlarmNode": ALARM,
    "action.TbCreateAlarmNode": ALARM
    | {
        "severity",
        "propagate",
        "propagateToOwner",
        "propagateToTenant",
        "useMessageAlarmData",
        "overwriteAlarmDetails",
        "dynamicSeverity",
        "relationTypes",
    },
    "metadata.TbGetAttributesNode": {
        "fetchTo",
        "clientAttributeNames",
        "sharedAttributeNames",
        "serverAttributeNames",
        "latestTsKeyNames",
        "tellFailureIfAbsent",
        "getLatestValueWithTs",
    },
}
ATTRIBUTES = {
    "scope",
    "notifyDevice",
    "sendAttributesUpdatedNotification",
    "updateAttributesOnlyOnValueChange",
}


def upgraded(node: dict[str, Any], server: tuple[int, ...]) -> None:
    """Bring a node to the server's version, in place.  Raises ValueError where it cannot start."""
    kind = node["type"].removeprefix(PACKAGE)
    settings = node["configuration"]
    version = node.get("configurationVersion", 0)
    keys, newest = _of(kind, server)
    if version > newest:
        raise ValueError(f"{kind} is of version {newest} only")
    if kind == "telemetry.TbMsgTimeseriesNode" and version < newest:
        settings.pop("skipLatestPersistence", None)
        settings["processingSettings"] = EVERY_MESSAGE
    elif kind == "telemetry.TbMsgAttributesNode" and version < newest:
        settings["processingSettings"] = EVERY_MESSAGE
    elif kind == "rpc.TbSendRPCRequestNode" and version < newest:
        settings |= {"forceAck": True, "overrideResponseTimeout": False}
    elif version < newest:
        raise ValueError(f"nobody wrote down how {kind} is upgraded from {version}")
    node["configurationVersion"] = newest
    if strange := settings.keys() - keys:
        raise ValueError(f"unrecognized field {sorted(strange)} of {kind}")
    if "processingSettings" in keys and settings.get("processingSettings") is None:
        raise ValueError("processingSettings must not be null")


def _of(kind: str, server: tuple[int, ...]) -> tuple[set[str], int]:
    """(keys, newest version) of a node's configuration."""
    match kind:
        case "telemetry.TbMsgTimeseriesNode":
            if server < (4, 0):
                return {"defaultTTL", "skipLatestPersistence", "useServerTs"}, 0
            return {"defaultTTL", "useServerTs", "processingSettings"}, 1
        case "telemetry.TbMsgAttributesNode":
            return (ATTRIBUTES, 2) if server < (4, 0) else ({*ATTRIBUTES, "processingSettings"}, 3)
        case "rpc.TbSendRPCRequestNode":
            newer = {"timeoutInSeconds", "forceAck", "overrideResponseTimeout"}
            return ({"timeoutInSeconds"}, 0) if server < (4, 4) else (newer, 1)
        case "metadata.TbGetAttributesNode" | "action.TbCreateRelationNode":
            return KEYS[kind], 1
    if kind not in KEYS:
        raise ValueError(f"there is no rule node {kind}")
    return KEYS[kind], 0
