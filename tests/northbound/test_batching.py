"""Packing loses nothing, mixes nothing up, and stays within what ThingsBoard takes."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.northbound.batching import ATTRIBUTES_TOPIC, TELEMETRY_TOPIC, pack
from gateway.northbound.telemetry import TelemetryRow

_devices = st.sampled_from(["CP-1", "CP-1/1", "CP-2", 'log of "all"', "журнал"])
_values = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d"]),
    st.one_of(
        st.integers(0, 9), st.booleans(), st.text(max_size=40), st.lists(st.text(max_size=9))
    ),
    min_size=1,
)
_rows = st.builds(TelemetryRow, _devices, st.one_of(st.none(), st.integers(1, 4)), _values)
_numbered_rows = st.lists(_rows, max_size=25).map(lambda rows: list(enumerate(rows, 1)))


def contents(message):
    """(device, ts, values) of a message, as ThingsBoard reads it."""
    for device, body in json.loads(message.publication.payload).items():
        if message.publication.topic == ATTRIBUTES_TOPIC:
            yield device, None, body
        else:
            assert message.publication.topic == TELEMETRY_TOPIC
            assert body
            for row in body:
                assert set(row) == {"ts", "values"}
                yield device, row["ts"], row["values"]


@given(_numbered_rows, st.booleans(), st.integers(50, 400))
def test_nothing_is_lost_and_the_later_value_of_a_key_wins(entry_rows, batch_devices, max_bytes):
    expected: dict = {}
    for _, row in entry_rows:
        expected.setdefault((row.device, row.ts), {}).update(row.values)
    got: dict = {}
    for message in pack(entry_rows, batch_devices=batch_devices, max_bytes=max_bytes):
        for device, ts, values in contents(message):
            known = got.setdefault((device, ts), {})
            assert not known.keys() & values.keys(), "sent twice"
            known.update(values)
    assert got == expected


@given(_numbered_rows, st.booleans(), st.integers(50, 400))
def test_a_message_is_never_too_large_but_for_a_value_that_is(entry_rows, batch_devices, max_bytes):
    for message in pack(entry_rows, batch_devices=batch_devices, max_bytes=max_bytes):
        if len(message.publication.payload) > max_bytes:
            ((_, _, values),) = contents(message)
            assert len(values) == 1


@given(_numbered_rows, st.booleans(), st.integers(1, 5))
def test_a_message_has_never_too_many_values(entry_rows, batch_devices, max_values):
    """Else a server with a rate limit of fewer would never take it."""
    for message in pack(entry_rows, batch_devices=batch_devices, max_values=max_values):
        assert message.cost.values <= max_values
        assert sum(len(values) for _, _, values in contents(message)) == message.cost.values


def test_a_row_that_is_too_large_goes_in_as_few_messages_as_hold_it():
    values = {"a": "x" * 300, "b": 1, "c": 2, "d": "y" * 300, "e": "z" * 900, "f": 3}
    packed = pack([(7, TelemetryRow("CP-1", 5, values))], batch_devices=True, max_bytes=500)
    keys = [list(row[2]) for message in packed for row in contents(message)]
    assert keys == [["a", "b", "c"], ["d"], ["e"], ["f"]]
    assert {(ts, message.seqs) for message in packed for _, ts, _ in contents(message)} == {
        (5, frozenset({7}))
    }


@pytest.mark.parametrize("device", ["CP-1/1", 'log of "all"', "журнал", "x" * 48])
@pytest.mark.parametrize("batch_devices", [True, False])
def test_a_long_history_of_one_device_fits_its_messages_whatever_their_size(device, batch_devices):
    entry_rows = [(n, TelemetryRow(device, n, {"k": n})) for n in range(1, 60)]
    for max_bytes in range(100, 400):
        for message in pack(entry_rows, batch_devices=batch_devices, max_bytes=max_bytes):
            assert len(message.publication.payload) <= max_bytes


@given(_numbered_rows, st.integers(50, 400))
def test_a_message_is_of_one_device_unless_many_may_share_it(entry_rows, max_bytes):
    for message in pack(entry_rows, batch_devices=False, max_bytes=max_bytes):
        assert len({device for device, _, _ in contents(message)}) == 1


@given(_numbered_rows, st.booleans(), st.integers(50, 400))
def test_a_message_knows_whose_entries_it_carries(entry_rows, batch_devices, max_bytes):
    for message in pack(entry_rows, batch_devices=batch_devices, max_bytes=max_bytes):
        here = {(device, ts) for device, ts, _ in contents(message)}
        assert message.seqs == {seq for seq, row in entry_rows if (row.device, row.ts) in here}


@given(_numbered_rows)
def test_many_devices_share_as_few_messages_as_there_can_be(entry_rows):
    packed = pack(entry_rows, batch_devices=True)
    assert len(packed) == len({row.ts is None for _, row in entry_rows})


@given(_numbered_rows)
def test_of_each_device_older_rows_come_no_later_than_they_were_told(entry_rows):
    """The first appearance of each instant keeps its order within a device."""
    got: dict = {}
    for message in pack(entry_rows, batch_devices=True, max_bytes=200):
        for device, ts, _ in contents(message):
            times = got.setdefault(device, [])
            if ts is not None and ts not in times[-1:]:  # one that was too large goes in several
                times.append(ts)
    expected: dict = {}
    for _, row in entry_rows:
        times = expected.setdefault(row.device, [])
        if row.ts is not None and row.ts not in times:
            times.append(row.ts)
    assert got == expected


def test_decimals_are_numbers_and_nothing_told_is_no_message():
    assert pack([], batch_devices=True) == []
    (message,) = pack(
        [(1, TelemetryRow("CP-1", 5, {"cost": Decimal("3.00")}))], batch_devices=False
    )
    assert message.publication.payload == b'{"CP-1":[{"ts":5,"values":{"cost":3.00}}]}'
