"""Every action of the official schemas with every kind of harmless deviation."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.domain import events
from gateway.journal.codec import dump, load
from gateway.southbound.messages import (
    CENTRAL_SYSTEM_ACTIONS,
    CHARGE_POINT_ACTIONS,
    read_result,
)
from gateway.southbound.request_events import event_of

from .test_deviations import NOW, fact, request
from .test_messages import schema_of


@attrs.frozen
class Place:
    """One value of a payload.  holder[key] is it; schema is its own; needed: it must be there."""

    holder: Any
    key: Any
    schema: dict[str, Any]
    needed: bool
    path: str


def resolved(schema: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        return root["definitions"][schema["$ref"].rpartition("/")[2]]
    return schema


def valid(schema: dict[str, Any], root: dict[str, Any], chance: random.Random) -> Any:
    schema = resolved(schema, root)
    if "enum" in schema:
        return chance.choice(schema["enum"])
    match schema["type"]:
        case "object":
            needed = schema.get("required", ())
            return {
                name: valid(inner, root, chance)
                for name, inner in schema.get("properties", {}).items()
                if name in needed or chance.random() < 0.7
            }
        case "array":
            return [valid(schema["items"], root, chance) for _ in range(chance.choice([1, 1, 2]))]
        case "integer":
            return chance.randrange(1, 10_000)
        case "number":
            return chance.randrange(1, 500) / 10
        case "boolean":
            return chance.random() < 0.5
    if schema.get("format") == "date-time":
        return "2026-01-01T10:00:00Z"
    return str(chance.randrange(1, 10**9))


def places(
    value: Any, schema: dict[str, Any], root: dict[str, Any], path: str = ""
) -> Iterator[Place]:
    schema = resolved(schema, root)
    if isinstance(value, dict):
        for name, item in value.items():
            inner, where = schema["properties"][name], f"{path}{name}."
            yield Place(
                value, name, resolved(inner, root), name in schema.get("required", ()), where
            )
            yield from places(item, inner, root, where)
    elif isinstance(value, list):
        for item in value:
            yield from places(item, schema["items"], root, path)


def _null(place: Place, chance: random.Random) -> bool:
    if place.needed:
        return False
    place.holder[place.key] = None
    return True


def _empty(place: Place, chance: random.Random) -> bool:
    if place.needed:
        return False
    place.holder[place.key] = ""
    return True


def _longer(place: Place, chance: random.Random) -> bool:
    if "maxLength" not in place.schema:
        return False
    place.holder[place.key] = str(place.holder[place.key]).ljust(place.schema["maxLength"] + 1, "0")
    return True


def _as_text(place: Place, chance: random.Random) -> bool:
    if place.schema["type"] not in ("integer", "number"):
        return False
    place.holder[place.key] = str(place.holder[place.key])
    return True


def _with_fraction(place: Place, chance: random.Random) -> bool:
    if place.schema["type"] != "integer":
        return False
    place.holder[place.key] = float(place.holder[place.key])
    return True


def _as_number(place: Place, chance: random.Random) -> bool:
    text = place.holder[place.key]
    if place.schema["type"] != "string" or not text.isdigit():
        return False
    place.holder[place.key] = int(text)
    return True


def _boolean(place: Place, chance: random.Random) -> bool:
    if place.schema["type"] != "boolean":
        return False
    value = place.holder[place.key]
    place.holder[place.key] = chance.choice([str(value), str(value).lower(), int(value)])
    return True


def _alone(place: Place, chance: random.Random) -> bool:
    if place.schema["type"] != "array" or len(place.holder[place.key]) != 1:
        return False
    (place.holder[place.key],) = place.holder[place.key]
    return True


def _null_within(place: Place, chance: random.Random) -> bool:
    if place.schema["type"] != "array":
        return False
    place.holder[place.key].append(None)
    return True


def _other_case(place: Place, chance: random.Random) -> bool:
    if "enum" not in place.schema:
        return False
    word = place.holder[place.key]
    place.holder[place.key] = chance.choice([word.lower(), word.upper()])
    return place.holder[place.key] != word


def _unknown_field(place: Place, chance: random.Random) -> bool:
    place.holder["vendorSpecific"] = {"a": [None, 1]}
    return True


def _name_in_other_case(place: Place, chance: random.Random) -> bool:
    other = place.key[0].upper() + place.key[1:]
    place.holder[other] = place.holder.pop(place.key)
    return True


Bend = Callable[[Place, random.Random], bool]
"""Breaks one place of a payload, and says whether it could."""

MEANT_AS_BEFORE: tuple[Bend, ...] = (
    _as_text, _with_fraction, _as_number, _boolean, _alone, _null_within, _other_case,
    _name_in_other_case,
)  # fmt: skip
BENDS: tuple[Bend, ...] = (*MEANT_AS_BEFORE, _null, _empty, _longer, _unknown_field)


def _case(name: str, seed: int, bend: Bend) -> tuple[Any, Any] | None:
    """(a valid payload, the same with one deviation); None where there is no place for it.

    Where null or an empty text stands, the valid one has nothing.
    """
    schema, chance = schema_of(name), random.Random(seed)
    straight = valid(schema, schema, chance)
    bent = json.loads(json.dumps(straight))
    all_places = list(places(bent, schema, schema))
    order = list(range(len(all_places)))
    chance.shuffle(order)
    for index in order:
        if bend(all_places[index], chance):
            same = list(places(straight, schema, schema))[index]
            if bend in (_null, _empty):
                del same.holder[same.key]
            return straight, bent
    return None


@pytest.mark.parametrize("bend", BENDS, ids=lambda bend: bend.__name__.strip("_"))
@pytest.mark.parametrize("action", sorted(CHARGE_POINT_ACTIONS))
def test_a_harmless_deviation_in_any_request_is_read_and_means_the_same(action, bend):
    @given(st.integers(0, 2**32))
    @settings(max_examples=15, deadline=None)
    def holds(seed):
        case = _case(action, seed, bend)
        if case is None:
            return
        straight, bent = case
        read = request(action, bent)
        event = event_of(action, read.payload, charge_point_id="CP-1", received_at=NOW)
        if event is not None:
            assert load(*dump(event)) == event
        if bend is not _longer:
            assert event == fact(action, straight)
        elif isinstance(event, events.ConnectorStatusChanged):
            assert event.info == bent.get("info", "")

    holds()


@pytest.mark.parametrize("bend", BENDS, ids=lambda bend: bend.__name__.strip("_"))
@pytest.mark.parametrize("action", sorted(CENTRAL_SYSTEM_ACTIONS))
def test_a_harmless_deviation_in_any_answer_is_read_and_means_the_same(action, bend):
    @given(st.integers(0, 2**32))
    @settings(max_examples=15, deadline=None)
    def holds(seed):
        case = _case(f"{action}Response", seed, bend)
        if case is None:
            return
        straight, bent = case
        message = json.loads(json.dumps(bent), parse_float=Decimal)
        answer = read_result(action, message)
        if bend in MEANT_AS_BEFORE or bend is _null:
            assert answer.payload == json.loads(json.dumps(straight), parse_float=Decimal)
        assert answer.deviations or bend in (_empty, _as_number)

    holds()
