"""What is ours in an entity, and what is the operator's."""

from __future__ import annotations

import pytest

from gateway.provisioning.changes import differences, merged


@pytest.mark.parametrize(
    ("there", "ours", "wrong"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, []),
        ({"a": 1}, {"a": 2}, ["a"]),
        ({}, {"a": None}, []),
        ({"a": {"b": [1, {"c": 2, "d": 3}]}}, {"a": {"b": [1, {"c": 2}]}}, []),
        ({"a": {"b": [1, {"c": 2}]}}, {"a": {"b": [1, {"c": 3}]}}, ["a.b[1].c"]),
        ({"a": [1, 2]}, {"a": [1]}, ["a"]),
        ({"a": [1]}, {"a": [1, 2]}, ["a"]),
        ({"a": None}, {"a": {"b": 1}}, ["a"]),
        ({"a": 1}, {"a": True}, ["a"]),
        ({"a": 1.0}, {"a": 1}, []),
    ],
)
def test_only_what_is_ours_can_be_wrong_and_merging_repairs_it(there, ours, wrong):
    assert list(differences(there, ours)) == wrong
    assert list(differences(merged(there, ours), ours)) == []


def test_what_was_added_stays():
    there = {"a": {"mine": 1}, "more": [1]}
    assert merged(there, {"a": {"ours": 2}}) == {"a": {"mine": 1, "ours": 2}, "more": [1]}
