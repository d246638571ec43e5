"""The rule chain "OCPP gateway": it stores telemetry, sends RPC to devices, and raises alarms.

It also relates connectors to their charger, since a gateway may create devices but no relations.

A condition reads the latest value of a key, never the message's own where the two can differ: late
telemetry (after an outage the newest may overtake the rest) changes no alarm.  The gateway repeats
`connected` and `status` within five minutes, which also corrects a race between two messages.

The nodes' names are fixed: by them an installation is found again, and nodes of any other name
are taken for those that operators added.
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

AUTHENTICATION_FAILURES = (
    "FailedToAuthenticateAtCentralSystem",
    "CentralSystemFailedToAuthenticate",
    "InvalidCentralSystemCertificate",
    "InvalidTLSVersion",
    "InvalidTLSCipherSuite",
)
"""Security events of a charge point and a central system that cannot authenticate each other
(OCPP 1.6 security whitepaper, appendix)."""

_LOG = "Log failures"
_NOT_LOGGED = frozenset({"filter.TbMsgTypeSwitchNode", "rpc.TbSendRPCRequestNode"})


def _is(event: str, *types: str) -> str:
    return "return " + " || ".join(f"msg.{event}.type == '{kind}'" for kind in types) + ";"


def chain() -> list[Node]:
    """The nodes; the first one receives every message."""
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
        *_connector_relation(),
        *_offline(),
        *_faulted(),
        *_needs_review(),
        *_refuses_authorisation(),
        nodes.log(_LOG),
    ]


def _connector_relation() -> list[Node]:
    """Dashboards find a charger's connectors by a relation, which no gateway device can create."""
    script = (
        "metadata.charge_point ="
        " metadata.deviceName.substring(0, metadata.deviceName.indexOf('/'));\n"
        "return {msg: msg, metadata: metadata, msgType: msgType};"
    )
    return [
        nodes.has_key("Tells where it is", "status", to={"True": "Whose connector"}),
        nodes.transform("Whose connector", script, to={"Success": "Belongs to its charger"}),
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
        # While the gateway itself is down, no telemetry says connected = false.
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
        # Only a correction clears the alarm, not the receipt of the next session.
        nodes.condition(
            "Is it a correction",
            "return msg.receipt.version > 1;",
            to={"True": "Clear needs review"},
        ),
        nodes.clear_alarm("Clear needs review", NEEDS_REVIEW),
    ]


def _refuses_authorisation() -> list[Node]:
    about = nodes.details(type="msg.security_event.type", tech_info="msg.security_event.tech_info")
    return [
        nodes.has_key("Tells security event", "security_event", to={"True": "Does it refuse us"}),
        nodes.condition(
            "Does it refuse us",
            _is("security_event", *AUTHENTICATION_FAILURES),
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


# --- in ThingsBoard's form -----------------------------------------------------------------------


@attrs.frozen
class Metadata:
    """A rule chain's nodes by name, and its connections as (from, relation, to)."""

    first: str
    nodes: Mapping[str, Mapping[str, Any]]
    connections: frozenset[tuple[str, str, str]]


def wanted() -> Metadata:
    """The chain as installed; the failures of all nodes are logged."""
    expected = chain()
    connections = {
        (node.name, relation, target)
        for node in expected
        for relation, targets in node.to.items()
        for target in targets
    }
    connections |= {
        (node.name, "Failure", _LOG)
        for node in expected
        if node.name != _LOG and not any(node.type.endswith(kind) for kind in _NOT_LOGGED)
    }
    positions = _positions(expected)
    return Metadata(
        expected[0].name,
        {
            node.name: {
                "type": node.type,
                "name": node.name,
                "configurationVersion": node.version,
                "configuration": node.configuration,
                "additionalInfo": {
                    "layoutX": positions[node.name][0],
                    "layoutY": positions[node.name][1],
                    "description": "",
                },
            }
            for node in expected
        },
        frozenset(connections),
    )


def read(metadata: Mapping[str, Any]) -> Metadata:
    """metadata: as `GET /api/ruleChain/{id}/metadata` answers.  Raises KeyError, IndexError."""
    found: dict[str, Mapping[str, Any]] = {}
    for node in metadata["nodes"] or []:
        name = str(node["name"])
        while name in found:  # ThingsBoard permits equal names; the later node is not ours
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
    """The metadata to save: our nodes as expected, and the nodes that operators added.

    metadata: the chain's present metadata.
    """
    existing, expected = read(metadata), wanted()
    added_nodes = {
        name: node for name, node in existing.nodes.items() if name not in expected.nodes
    }
    kept = {one for one in existing.connections if {one[0], one[2]} & added_nodes.keys()}
    all_nodes = {
        name: {**node, "id": known["id"]}
        if (known := existing.nodes.get(name)) is not None and known.get("id")
        else dict(node)
        for name, node in {**expected.nodes, **added_nodes}.items()
    }
    indexes = {name: index for index, name in enumerate(all_nodes)}
    return {
        **{key: metadata[key] for key in ("version", "notes") if metadata.get(key) is not None},
        "ruleChainId": dict(chain_id),
        "firstNodeIndex": indexes[expected.first],
        "nodes": list(all_nodes.values()),
        "connections": [
            {"fromIndex": indexes[start], "toIndex": indexes[end], "type": relation}
            for start, relation, end in sorted(expected.connections | kept)
        ],
        "ruleChainConnections": [],
    }


def differences(existing: Metadata) -> list[str]:
    """How the chain differs from the expected one; nodes that operators added do not count."""
    expected = wanted()
    if not existing.nodes:
        return ["it is empty"]
    differences = [
        f"node {name!r} is missing" for name in expected.nodes if name not in existing.nodes
    ]
    for name in expected.nodes.keys() & existing.nodes.keys():
        node, found = expected.nodes[name], existing.nodes[name]
        same = node["type"] == found.get("type") and _has_configuration(
            found.get("configuration"), node["configuration"]
        )
        if not same:
            differences.append(f"node {name!r} is changed")
    between_expected = {
        one for one in existing.connections if {one[0], one[2]} <= expected.nodes.keys()
    }
    differences += [
        f"{start!r} no longer leads to {end!r} by {relation}"
        for start, relation, end in expected.connections - between_expected
    ]
    differences += [
        f"{start!r} leads to {end!r} by {relation}"
        for start, relation, end in between_expected - expected.connections
    ]
    if existing.first != expected.first:
        differences.append(f"it begins with {existing.first!r}")
    return sorted(differences)


def _has_configuration(existing: Any, expected: Mapping[str, Any]) -> bool:
    """Whether a configuration is as expected; the server may have added keys of newer versions."""
    return isinstance(existing, dict) and all(
        key in existing and existing[key] == value for key, value in expected.items()
    )


def _positions(expected: list[Node]) -> dict[str, tuple[int, int]]:
    """The nodes' positions in the editor: a column for each step from the first node."""
    column: dict[str, int] = {expected[0].name: 0}
    for node in expected:  # each node precedes its targets, or is a target of an earlier node
        for targets in node.to.values():
            for target in targets:
                column.setdefault(target, column.get(node.name, 0) + 1)
    rows: dict[int, int] = {}
    positions = {}
    for node in expected:
        x = column.get(node.name, 6)
        rows[x] = rows.get(x, 0) + 1
        positions[node.name] = (60 + 280 * x, 60 + 90 * rows[x])
    return positions
