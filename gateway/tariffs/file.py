"""The tariff file: OCPI tariffs, the connectors they are assigned to, and the operator's policy."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Set
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from . import fields
from .dimensions import FREE, PARKING_TIME, TIME
from .fields import Fault, Faults, Node
from .ocpi_tariff import tariff_of
from .policy import POLICY_FIELDS, Policy
from .tariff import Assignment, Tariff, TariffBook, Terms
from .warnings import check_tariff

__all__ = ["Fault", "read_tariffs", "repeated_keys", "terms_of"]


def read_tariffs(
    document: object,
    *,
    default_time_zone: str | None = None,
    zones: Mapping[str, str] | None = None,
    max_power_kw: Mapping[str, Decimal] | None = None,
) -> tuple[TariffBook, tuple[Fault, ...]]:
    """The book of a tariff file, and everything that is wrong with the file.

    document: decoded JSON, `{"tariffs": [...], "assign": [...], "time_zone": ..., "policy": {}}`,
        its numbers read with `parse_float=Decimal`.
    default_time_zone: for charge points without one of their own; the file's is used last.
    zones: charge point id -> IANA time zone.  max_power_kw: charge point id -> kW.
    With a fatal fault the book is empty.
    """
    faults = Faults()
    tariff_book = _tariff_book_of(
        document, default_time_zone, zones or {}, max_power_kw or {}, faults
    )
    if any(fault.fatal for fault in faults.found):
        tariff_book = TariffBook.empty()
    return tariff_book, tuple(faults.found)


def repeated_keys(text: str) -> tuple[Fault, ...]:
    """A fault for each member that an object of the JSON text has twice: readers differ in which
    of the two they take (RFC 8259, section 4), and so would the price.

    Raises ValueError, RecursionError where the text cannot be read.
    """
    faults = Faults()
    _check_keys(json.loads(text, object_pairs_hook=_ObjectMembers), faults)
    return tuple(faults.found)


def terms_of(
    tariff: Mapping[str, Any] | None, policy: Mapping[str, Any] | None, time_zone: str | None
) -> Terms:
    """The terms of a session from the snapshot that was taken at its start.

    Raises ValueError where that is none of ours.
    """
    faults = Faults()
    read = None if tariff is None else tariff_of(tariff, faults)
    priced = read is not None and bool(read.dimensions)
    found = Terms(
        tariff=read if priced else None,
        unpriced=tariff is not None and not priced,
        policy=_policy(policy or {}, faults),
        time_zone=time_zone,
        zone=ZoneInfo(time_zone or "UTC"),
    )
    wrong = next((fault for fault in faults.found if fault.fatal), None)
    if wrong is not None:
        raise ValueError(f"{wrong.where} {wrong.what}")
    return found


class _ObjectMembers(list[tuple[str, Any]]):
    """A JSON object as it stands in the text, with all of its members."""


def _check_keys(value: object, faults: Faults) -> None:
    if isinstance(value, _ObjectMembers):
        seen: set[str] = set()
        for name, member in value:
            with faults.at(name):
                if name in seen:
                    faults.error("is there twice in one object")
                seen.add(name)
                _check_keys(member, faults)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            with faults.at(index):
                _check_keys(item, faults)


# --- the file ---------------------------------------------------------------------------------


def _tariff_book_of(
    document: object,
    default_time_zone: str | None,
    zones: Mapping[str, str],
    max_power_kw: Mapping[str, Decimal],
    faults: Faults,
) -> TariffBook:
    if not isinstance(document, dict):
        faults.error(f"must be an object, not {fields.quoted(document)}")
        return TariffBook.empty()
    node = Node(document, faults)
    for name in document.keys() - {"tariffs", "assign", "time_zone", "policy"}:
        with faults.at(name):
            faults.warn("is not known here: ignored")
    tariffs: dict[str, Tariff] = {}
    faulty: set[str] = set()  # the ids of those that are reported already
    with faults.at("tariffs"):
        for index, item in fields.read_objects(document.get("tariffs", []), faults):
            with faults.at(index):
                tariff = tariff_of(item, faults)
                if tariff is None:
                    faulty.add(str(item.get("id")))
                elif tariff.id in tariffs:
                    faults.error(f'the id "{tariff.id}" is another tariff\'s')
                else:
                    tariffs[tariff.id] = tariff
                    check_tariff(tariff, faults)
    if document.get("policy") is not None and not isinstance(document["policy"], dict):
        with faults.at("policy"):
            faults.error("must be an object")
        document = {**document, "policy": {}}
    with faults.at("policy"):
        policy = _policy(document.get("policy") or {}, faults)
    file_zone = node.get("time_zone", _time_zone)
    if default_time_zone is not None:
        with faults.at("time_zone"):
            default_time_zone = _time_zone(default_time_zone, faults)
    for name, zone in zones.items():
        with faults.at(f'zones["{name}"]'):
            _time_zone(zone, faults)
    time_zone = default_time_zone or file_zone
    if tariffs and time_zone is None and not any(f.where == "time_zone" for f in faults.found):
        with faults.at("time_zone"):
            faults.error("is missing: a tariff's times of day mean nothing without it")
    return TariffBook(
        assignments=_assignments(document.get("assign"), tariffs, faulty, faults),
        policy=policy,
        time_zone=time_zone,
        zones=dict(zones),
        max_power_kw=dict(max_power_kw),
    )


def _assignments(
    value: object, tariffs: Mapping[str, Tariff], faulty: Set[str], faults: Faults
) -> tuple[Assignment, ...]:
    if value is None:  # one list for everybody
        return (Assignment(default=True, tariffs=tuple(tariffs.values())),) if tariffs else ()
    found: list[tuple[int, Assignment]] = []
    with faults.at("assign"):
        for index, item in fields.read_objects(value, faults):
            with faults.at(index):
                assignment = _assignment(Node(item, faults), tariffs, faulty)
                _check_overlap(assignment, found, faults)
                found.append((index, assignment))
    assigned = {tariff.id for _, assignment in found for tariff in assignment.tariffs}
    for name in tariffs.keys() - assigned:
        with faults.at("tariffs"):
            faults.warn(f'nobody pays by the tariff "{name}": no assignment names it')
    return tuple(assignment for _, assignment in found)


def _check_overlap(
    assignment: Assignment, earlier: Iterable[tuple[int, Assignment]], faults: Faults
) -> None:
    """Two defaults for one connector contradict each other; else the first is meant to hold."""
    for index, other in earlier:
        if assignment.default and (other.hides(assignment) or assignment.hides(other)):
            with faults.at("default"):
                faults.error(f"overlaps with assign[{index}], which is the default already")
            return
        if other.hides(assignment):
            faults.warn(f"never holds: assign[{index}] covers all that it covers")
            return


def _assignment(node: Node, tariffs: Mapping[str, Tariff], faulty: Set[str]) -> Assignment:
    faults = node.faults
    for name in node.value.keys() - {"charge_point", "connector", "default", "tariffs"}:
        with faults.at(name):
            faults.error("is not known here")
    charge_point = node.get("charge_point", fields.read_text)
    default = bool(node.get("default", fields.read_flag))
    if charge_point is None and not default:
        faults.error("names neither a charge_point nor is the default")
    chosen = []
    with faults.at("tariffs"):
        ids = node.value.get("tariffs")
        if not isinstance(ids, list) or not ids:
            faults.error("must be a list of tariff ids")
            ids = []
        for index, name in enumerate(ids):
            with faults.at(index):
                tariff = tariffs.get(name) if isinstance(name, str) else None
                if tariff is not None:
                    chosen.append(tariff)
                elif not isinstance(name, str) or name not in faulty:
                    faults.error(f"there is no tariff {fields.quoted(name)}")
    return Assignment(
        charge_point=charge_point or "*",
        connector_id=node.get("connector", fields.read_whole_number),
        default=default,
        tariffs=tuple(chosen),
    )


_dimension_or_free = fields.read_choice(TIME, PARKING_TIME, FREE)
_POLICY = {
    "suspended_evse": _dimension_or_free,
    "faulted": _dimension_or_free,
    "idle_detection": fields.read_choice("status", "power"),
    "post_stop_parking": fields.read_flag,
    "rounding": fields.read_choice("HALF_UP", "HALF_EVEN"),
}


def _policy(value: Mapping[str, Any], faults: Faults) -> Policy:
    node = Node(value, faults)
    for name in value.keys() - set(POLICY_FIELDS):
        with faults.at(name):
            faults.error(f"is not known; there are {', '.join(POLICY_FIELDS)}")
    read = {name: node.get(name, _POLICY.get(name, fields.read_number)) for name in POLICY_FIELDS}
    if read["max_power_kw"] == 0:
        with faults.at("max_power_kw"):
            faults.error("must be above 0: no energy would ever be believed")
    return Policy(**{name: value for name, value in read.items() if value is not None})


def _time_zone(value: Any, faults: Faults) -> str | None:
    if isinstance(value, str) and value:
        try:
            return ZoneInfo(value).key
        except (ValueError, OSError, KeyError):  # no path, a folder, not found
            pass
    faults.error(f"must be a time zone like Europe/Amsterdam, not {fields.quoted(value)}")
    return None
