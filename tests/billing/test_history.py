"""Readings that come late are put in their places, as if they had come one at a time."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.billing.energy import EnergyValue
from gateway.billing.energy_curve import MeterEntry
from gateway.billing.history import History, Late, entries, with_late
from gateway.domain.event_values import Reading, Sample

from .builders import CP, PER_KWH, at, receipt, tariff_book


def entry(instant: int, value: int) -> MeterEntry:
    return MeterEntry(instant, registers=(EnergyValue(0, "", 1, value),))


def inserted(history: History, new: MeterEntry) -> tuple[History, bool]:
    """One entry put in its place; and whether it said anything new behind the newest."""
    if history is None or history[0].at < new.at:
        return (new, history), False
    if history[0].at == new.at:
        joined = history[0].joined(new)
        return (history, False) if joined == history[0] else ((joined, history[1]), False)
    rest, _ = inserted(history[1], new)
    return (history, False) if rest is history[1] else ((history[0], rest), True)


@given(
    st.lists(st.integers(0, 12), max_size=10),
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2)), min_size=1, max_size=12),
)
def test_many_at_once_are_the_same_as_one_at_a_time(known, late):
    history: History = None
    for instant in sorted({*known, 12}):
        history = (entry(instant, 0), history)
    one_at_a_time, reordered = history, False
    for instant, value in late:
        one_at_a_time, behind = inserted(one_at_a_time, entry(instant, value))
        reordered = reordered or behind
    at_once = with_late(history, [Late(entry(*each), overtaken=True) for each in late])
    assert list(entries(at_once[0])) == list(entries(one_at_a_time))
    assert at_once[1] == reordered
    if one_at_a_time is history:
        assert at_once[0] is history


def test_what_lies_before_the_late_ones_is_not_copied():
    history: History = None
    for instant in range(100):
        history = (entry(instant, instant), history)
    older = history
    while older[0].at > 90:
        older = older[1]
    changed, _ = with_late(history, [Late(entry(95, 1), overtaken=True)])
    while changed[0].at > 90:
        changed = changed[1]
    assert changed is older


def readings(count: int, **how: Any) -> list[Reading]:
    return [
        Reading(
            at(60 * number / count if how.get("timed", True) else 30),
            (
                Sample(value=str(1_000 + number), unit="Wh"),
                Sample(value=f"OCMF|{number}", format="SignedData"),
            )
            if how.get("signed")
            else (Sample(value=str(1_000 + number), unit="Wh"),),
        )
        for number in range(count)
    ]


@pytest.mark.parametrize("how", [{}, {"signed": True}, {"timed": False}], ids=str)
@pytest.mark.parametrize("order", ["in order", "backwards", "shuffled", "told before"])
def test_the_cost_of_a_stop_grows_with_its_readings_and_not_with_their_square(how, order):
    """Twenty thousand took minutes: each was put in its place, or looked for, by a walk."""
    data = readings(20_000, **how)
    live = []
    if order == "backwards":
        data.reverse()
    elif order == "shuffled":
        random.Random(1).shuffle(data)
    elif order == "told before":
        live = [CP.readings(60, *data)]
    began = time.process_time()
    stop = CP.stop(60, "20999", readings=tuple(data))
    told = receipt(tariff_book(PER_KWH), CP.start(), *live, stop)
    assert time.process_time() - began < 5
    assert told["energy_wh"] == "19999"
    assert len(told.get("signed", ())) == (20_000 if how.get("signed") else 0)
