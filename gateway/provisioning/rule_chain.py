"""The rule chain "OCPP gateway": keeps what chargers tell, carries RPC to them, raises alarms.

It also makes connectors their charger's, since a gateway may create devices but no relations.

A condition looks at the latest value of a key, never at the message's own where the two can
differ: telemetry that comes late (after an outage the newest may overtake the rest) changes no
alarm.  The gateway repeats `connected` and `status` within five minutes, which also mends what a
race between two messages got wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from ..domain.refused_tags import TAG_ACCEPTED, TAGS_REFUSED
from ..northbound.telemetry_keys import CHARGE_POINT_TYPE, CONNECTOR_TYPE
from . import nodes
from .dashboards.devices import CONTAINS
from .nodes import Node

NAME = "OCPP gateway"
DESCRIPTION = "Made by `ocpp-gateway thingsboard install`, which also repairs it."

OFFLINE = "Offline"
FAULTED = "Faulted"
NEEDS_REVIEW = "Session needs review"
REFUSES = "Charger refuses authorisation"
ALARMS = (OFFLINE, FAULTED, NEEDS_REVIEW, REFUSES)

REFUSES_US = (
    "FailedToAuthenticateAtCentralSystem",
    "CentralSystemFailedToAuthenticate",
    "InvalidCentralSystemCertificate",
    "InvalidTLSVersion",
    "InvalidTLSCipherSuite",
)
"""Security events by which a charge point says that it and its central system do not trust each
other (OCPP 1.6 security whitepaper, appendix)."""

_LOG = "Log failures"
_UNWATCHED = frozenset({"filter.TbMsgTypeSwitchNode", "rpc.TbSendRPCRequestNode"})


def _is(event: str, *types: str) -> str:
    return "return " + " || ".join(f"msg.{event}.type == '{kind}'" for kind in types) + ";"


def chain() -> list[Node]:
    """The nodes, the first of them first."""
    return [
        nodes.by_message_type(
            "Kind of message",
            to={
                "Post telemetry": "Save time series",
                "Post attributes": "Save client attributes",
                "RPC Request to Device": "RPC to device",
                "Inactivity Event": "What fell silent",
            },
        ),
        nodes.save_time_series("Save time series", to={"Success": "What told it"}),
        nodes.save_client_attributes("Save client attributes"),
        nodes.rpc_to_device("RPC to device"),
        nodes.by_profile(
            "What told it",
            to={
                CHARGE_POINT_TYPE: ("Tells connected", "Tells status", "Tells security event"),
                CONNECTOR_TYPE: ("Tells status", "Tells receipt", "Tells where it is"),
            },
        ),
        *_belongs(),
        *_offline(),
        *_faulted(),
        *_needs_review(),
        *_refuses(),
        nodes.log(_LOG),
    ]


def _belongs() -> list[Node]:
    """Dashboards find a charger's connectors along a relation, which no gateway device can make."""
    whose = (
        "metadata.charge_point ="
        " metadata.deviceName.substring(0, metadata.deviceName.indexOf('/'));\n"
        "return {msg: msg, metadata: metadata, msgType: msgType};"
    )
    return [
        nodes.has_key("Tells where it is", "status", to={"True": "Whose connector"}),
        nodes.transform("Whose connector", whose, to={"Success": "Belongs to its charger"}),
        nodes.related_from("Belongs to its charger", CONTAINS, "${charge_point}"),
    ]


def _offline() -> list[Node]:
    return [
        nodes.has_key("Tells connected", "connected", to={"True": "Latest connected"}),
        nodes.latest(
            "Latest connected", ["connected", "disconnect_reason"], to={"Success": "Is it offline"}
        ),
        nodes.condition(
            "Is it offline",
            "return metadata.connected == 'false';",
            to={"True": "Raise Offline", "False": "Clear Offline"},
        ),
        nodes.create_alarm(
            "Raise Offline",
            OFFLINE,
            "MAJOR",
            nodes.details(disconnect_reason="metadata.disconnect_reason"),
        ),
        nodes.clear_alarm("Clear Offline", OFFLINE),
        # The second net: when the gateway itself is away, nobody says connected = false.
        nodes.by_profile(
            "What fell silent", to={CHARGE_POINT_TYPE: "Raise Offline: nothing heard"}
        ),
        nodes.create_alarm(
            "Raise Offline: nothing heard",
            OFFLINE,
            "MAJOR",
            nodes.details(disconnect_reason="'nothing heard: is the gateway running?'"),
        ),
    ]


def _faulted() -> list[Node]:
    about = ["error_code", "vendor_error_code", "info"]
    return [
        nodes.has_key("Tells status", "status", to={"True": "Latest status"}),
        nodes.latest("Latest status", ["status", *about], to={"Success": "Is it faulted"}),
        nodes.condition(
            "Is it faulted",
            "return metadata.status == 'Faulted';",
            to={"True": "Raise Faulted", "False": "Clear Faulted"},
        ),
        nodes.create_alarm(
            "Raise Faulted",
            FAULTED,
            "CRITICAL",
            nodes.details(**{key: f"metadata.{key}" for key in about}),
        ),
        nodes.clear_alarm("Clear Faulted", FAULTED),
    ]


def _needs_review() -> list[Node]:
    about = ["receipt_id", "started_at", "stopped_at", "id_tag", "flags"]
    return [
        nodes.has_key("Tells receipt", "receipt", to={"True": "Does it need review"}),
        nodes.condition(
            "Does it need review",
            "return msg.receipt.needs_review == true;",
            to={"True": "Raise needs review", "False": "Is it a correction"},
        ),
        nodes.create_alarm(
            "Raise needs review",
            NEEDS_REVIEW,
            "WARNING",
            nodes.details(**{key: f"msg.receipt.{key}" for key in about}),
        ),
        # The next session's receipt says nothing of the doubtful one; its correction does.
        nodes.condition(
            "Is it a correction",
            "return msg.receipt.version > 1;",
            to={"True": "Clear needs review"},
        ),
        nodes.clear_alarm("Clear needs review", NEEDS_REVIEW),
    ]


def _refuses() -> list[Node]:
    about = nodes.details(type="msg.security_event.type", tech_info="msg.security_event.tech_info")
    return [
        nodes.has_key("Tells security event", "security_event", to={"True": "Does it refuse us"}),
        nodes.condition(
            "Does it refuse us",
            _is("security_event", *REFUSES_US),
            to={"True": "Raise refuses us", "False": "Are drivers refused"},
        ),
        nodes.create_alarm("Raise refuses us", REFUSES, "MAJOR", about),
        nodes.condition(
            "Are drivers refused",
            _is("security_event", TAGS_REFUSED),
            to={"True": "Raise drivers refused", "False": "Is one accepted"},
        ),
        nodes.create_alarm("Raise drivers refused", REFUSES, "WARNING", about),
        nodes.condition(
            "Is one accepted",
            _is("security_event", TAG_ACCEPTED),
            to={"True": "Clear refuses"},
        ),
        nodes.clear_alarm("Clear refuses", REFUSES),
    ]


# --- as ThingsBoard has it -----------------------------------------------------------------------


@attrs.frozen
class Metadata:
    """A rule chain's inside: nodes by name, and who leads to whom by which relation."""

    first: str
    nodes: Mapping[str, Mapping[str, Any]]
    connections: frozenset[tuple[str, str, str]]


def wanted() -> Metadata:
    """Our chain; the failures of all nodes are logged."""
    ours = chain()
    connections = {
        (node.name, relation, target)
        for node in ours
        for relation, targets in node.to.items()
        for target in targets
    }
    connections |= {
        (node.name, "Failure", _LOG)
        for node in ours
        if node.name != _LOG and not any(node.type.endswith(kind) for kind in _UNWATCHED)
    }
    places = _places(ours)
    return Metadata(
        ours[0].name,
        {
            node.name: {
                "type": node.type,
                "name": node.name,
                "configurationVersion": node.version,
                "configuration": node.configuration,
                "additionalInfo": {
                    "layoutX": places[node.name][0],
                    "layoutY": places[node.name][1],
                    "description": "",
                },
            }
            for node in ours
        },
        frozenset(connections),
    )


def read(metadata: Mapping[str, Any]) -> Metadata:
    """metadata: as `GET /api/ruleChain/{id}/metadata` answers.  Raises KeyError, IndexError."""
    found: dict[str, Mapping[str, Any]] = {}
    for node in metadata["nodes"] or []:
        name = str(node["name"])
        while name in found:  # ThingsBoard does not mind two of a name; the later is a stranger
            name += "'"
        found[name] = node
    names = list(found)
    first = metadata.get("firstNodeIndex")
    return Metadata(
        "" if first is None else names[first],
        found,
        frozenset(
            (names[one["fromIndex"]], str(one["type"]), names[one["toIndex"]])
            for one in metadata["connections"] or []
        ),
    )


def body(chain_id: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What to save, so that our nodes are as they should be and the operator's own stay.

    metadata: the chain's metadata as they are now.
    """
    there, ours = read(metadata), wanted()
    strangers = {name: node for name, node in there.nodes.items() if name not in ours.nodes}
    kept = {one for one in there.connections if {one[0], one[2]} & strangers.keys()}
    everybody = {
        name: {**node, "id": known["id"]}
        if (known := there.nodes.get(name)) is not None and known.get("id")
        else dict(node)
        for name, node in {**ours.nodes, **strangers}.items()
    }
    places = {name: index for index, name in enumerate(everybody)}
    return {
        **{key: metadata[key] for key in ("version", "notes") if metadata.get(key) is not None},
        "ruleChainId": dict(chain_id),
        "firstNodeIndex": places[ours.first],
        "nodes": list(everybody.values()),
        "connections": [
            {"fromIndex": places[start], "toIndex": places[end], "type": relation}
            for start, relation, end in sorted(ours.connections | kept)
        ],
        "ruleChainConnections": [],
    }


def differences(there: Metadata) -> list[str]:
    """What is not as it should be; nodes that operators added do not count."""
    ours = wanted()
    if not there.nodes:
        return ["it is empty"]
    differences = [f"node {name!r} is missing" for name in ours.nodes if name not in there.nodes]
    for name in ours.nodes.keys() & there.nodes.keys():
        node, found = ours.nodes[name], there.nodes[name]
        same = node["type"] == found.get("type") and _holds(
            found.get("configuration"), node["configuration"]
        )
        if not same:
            differences.append(f"node {name!r} is changed")
    among_ours = {one for one in there.connections if {one[0], one[2]} <= ours.nodes.keys()}
    differences += [
        f"{start!r} no longer leads to {end!r} by {relation}"
        for start, relation, end in ours.connections - among_ours
    ]
    differences += [
        f"{start!r} leads to {end!r} by {relation}"
        for start, relation, end in among_ours - ours.connections
    ]
    if there.first != ours.first:
        differences.append(f"it begins with {there.first!r}")
    return sorted(differences)


def _holds(there: Any, ours: Mapping[str, Any]) -> bool:
    """Whether a configuration is ours; the server may have added keys of newer versions."""
    return isinstance(there, dict) and all(
        key in there and there[key] == value for key, value in ours.items()
    )


def _places(ours: list[Node]) -> dict[str, tuple[int, int]]:
    """Where the editor draws each node: a column for each step from the first."""
    column: dict[str, int] = {ours[0].name: 0}
    for node in ours:  # each stands before those that it leads to, or is led to by an earlier one
        for targets in node.to.values():
            for target in targets:
                column.setdefault(target, column.get(node.name, 0) + 1)
    rows: dict[int, int] = {}
    places = {}
    for node in ours:
        x = column.get(node.name, 6)
        rows[x] = rows.get(x, 0) + 1
        places[node.name] = (60 + 280 * x, 60 + 90 * rows[x])
    return places
