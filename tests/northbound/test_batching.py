"""Packing loses nothing, mixes nothing up, and stays within what ThingsBoard takes."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.northbound.batching import ATTRIBUTES_TOPIC, TELEMETRY_TOPIC, parcels
from gateway.northbound.telemetry import Row

_devices = st.sampled_from(["CP-1", "CP-1/1", "CP-2", 'log of "all"', "журнал"])
_values = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d"]),
    st.one_of(
        st.integers(0, 9), st.booleans(), st.text(max_size=40), st.lists(st.text(max_size=9))
    ),
    min_size=1,
)
_rows = st.builds(Row, _devices, st.one_of(st.none(), st.integers(1, 4)), _values)
_told = st.lists(_rows, max_size=25).map(lambda rows: list(enumerate(rows, 1)))


def contents(parcel):
    """(device, ts, values) of a message, as ThingsBoard reads it."""
    for device, body in json.loads(parcel.publication.payload).items():
        if parcel.publication.topic == ATTRIBUTES_TOPIC:
            yield device, None, body
        else:
            assert parcel.publication.topic == TELEMETRY_TOPIC
            assert body
            for row in body:
                assert set(row) == {"ts", "values"}
                yield device, row["ts"], row["values"]


@given(_told, st.booleans(), st.integers(50, 400))
def test_nothing_is_lost_and_the_later_value_of_a_key_wins(told, many_devices, most_bytes):
    expected: dict = {}
    for _, row in told:
        expected.setdefault((row.device, row.ts), {}).update(row.values)
    got: dict = {}
    for parcel in parcels(told, many_devices=many_devices, most_bytes=most_bytes):
        for device, ts, values in contents(parcel):
            known = got.setdefault((device, ts), {})
            assert not known.keys() & values.keys(), "told twice"
            known.update(values)
    assert got == expected


@given(_told, st.booleans(), st.integers(50, 400))
def test_a_message_is_never_too_large_but_for_a_value_that_is(told, many_devices, most_bytes):
    for parcel in parcels(told, many_devices=many_devices, most_bytes=most_bytes):
        if len(parcel.publication.payload) > most_bytes:
            ((_, _, values),) = contents(parcel)
            assert len(values) == 1


@given(_told, st.booleans(), st.integers(1, 5))
def test_a_message_has_never_too_many_values(told, many_devices, most_values):
    """Else a server with a rate limit of fewer would never take it."""
    for parcel in parcels(told, many_devices=many_devices, most_values=most_values):
        assert parcel.cost.values <= most_values
        assert sum(len(values) for _, _, values in contents(parcel)) == parcel.cost.values


def test_a_row_that_is_too_large_goes_in_as_few_messages_as_hold_it():
    values = {"a": "x" * 300, "b": 1, "c": 2, "d": "y" * 300, "e": "z" * 900, "f": 3}
    packed = parcels([(7, Row("CP-1", 5, values))], many_devices=True, most_bytes=500)
    told = [list(row[2]) for parcel in packed for row in contents(parcel)]
    assert told == [["a", "b", "c"], ["d"], ["e"], ["f"]]
    assert {(ts, parcel.seqs) for parcel in packed for _, ts, _ in contents(parcel)} == {
        (5, frozenset({7}))
    }


@pytest.mark.parametrize("device", ["CP-1/1", 'log of "all"', "журнал", "x" * 48])
@pytest.mark.parametrize("many_devices", [True, False])
def test_a_long_history_of_one_device_fits_its_messages_whatever_their_size(device, many_devices):
    told = [(n, Row(device, n, {"k": n})) for n in range(1, 60)]
    for most_bytes in range(100, 400):
        for parcel in parcels(told, many_devices=many_devices, most_bytes=most_bytes):
            assert len(parcel.publication.payload) <= most_bytes


@given(_told, st.integers(50, 400))
def test_a_message_is_of_one_device_unless_many_may_share_it(told, most_bytes):
    for parcel in parcels(told, many_devices=False, most_bytes=most_bytes):
        assert len({device for device, _, _ in contents(parcel)}) == 1


@given(_told, st.booleans(), st.integers(50, 400))
def test_a_message_knows_whose_entries_it_carries(told, many_devices, most_bytes):
    for parcel in parcels(told, many_devices=many_devices, most_bytes=most_bytes):
        here = {(device, ts) for device, ts, _ in contents(parcel)}
        assert parcel.seqs == {seq for seq, row in told if (row.device, row.ts) in here}


@given(_told)
def test_many_devices_share_as_few_messages_as_there_can_be(told):
    packed = parcels(told, many_devices=True)
    assert len(packed) == len({row.ts is None for _, row in told})


@given(_told)
def test_of_each_device_older_rows_come_no_later_than_they_were_told(told):
    """The first appearance of each instant keeps its order within a device."""
    got: dict = {}
    for parcel in parcels(told, many_devices=True, most_bytes=200):
        for device, ts, _ in contents(parcel):
            times = got.setdefault(device, [])
            if ts is not None and ts not in times[-1:]:  # one that was too large goes in several
                times.append(ts)
    expected: dict = {}
    for _, row in told:
        times = expected.setdefault(row.device, [])
        if row.ts is not None and row.ts not in times:
            times.append(row.ts)
    assert got == expected


def test_decimals_are_numbers_and_nothing_told_is_no_message():
    assert parcels([], many_devices=True) == []
    (parcel,) = parcels([(1, Row("CP-1", 5, {"cost": Decimal("3.00")}))], many_devices=False)
    assert parcel.publication.payload == b'{"CP-1":[{"ts":5,"values":{"cost":3.00}}]}'
