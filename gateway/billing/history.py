"""The readings of a session in the order of their time, newest first: a linked list, so that one
more costs the same whether ten or ten thousand came before it.

What comes late is inserted where it belongs.  A StopTransaction may repeat, or bring for the first
time, tens of thousands of readings in any order (OCPP 1.6 §4.10), so all that one message brings is
inserted in one pass: one pass for each would take seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple, TypeAlias

from .energy_curve import MeterEntry

History: TypeAlias = "tuple[MeterEntry, History] | None"


class Late(NamedTuple):
    """An entry that is not newer than all before it.

    overtaken: it is older than the newest; else of the same instant.
    """

    entry: MeterEntry
    overtaken: bool


def entries(history: History) -> Sequence[MeterEntry]:
    """Oldest first."""
    found = list(_newest_first(history))
    found.reverse()
    return found


def with_late(history: History, late: Sequence[Late]) -> tuple[History, bool]:
    """The history with late entries inserted, the same object where nothing is new; and
    whether energy came out of order."""
    above: list[MeterEntry] = []
    rest = history
    changed = reordered = False
    # Stable: entries of one instant stay in the order in which they came.
    in_order = sorted(late, key=_at)
    in_order.reverse()
    for at, same in groupby(in_order, _at):
        while rest is not None and rest[0].at > at:
            above.append(rest[0])
            rest = rest[1]
        group = list(same)
        group.reverse()
        at_instant = [one.entry for one in group]
        present = None
        if rest is not None and rest[0].at == at:
            present, rest = rest
            at_instant.insert(0, present)
        entry = _joined(at_instant)
        if entry == present:
            above.append(present)
            continue
        above.append(entry)
        changed = True
        reordered = reordered or any(
            one.overtaken and (one.entry.registers or one.entry.intervals) for one in group
        )
    if not changed:
        return history, False
    for entry in reversed(above):
        rest = (entry, rest)
    return rest, reordered


def _at(late: Late) -> int:
    return late.entry.at


def _joined(entries: list[MeterEntry]) -> MeterEntry:
    """All of one instant as one; by halves, for each joining copies what it joins."""
    while len(entries) > 1:
        pairs = [one.joined(other) for one, other in zip(entries[::2], entries[1::2], strict=False)]
        entries = [*pairs, *entries[len(pairs) * 2 :]]
    return entries[0]


def _newest_first(history: History) -> Iterator[MeterEntry]:
    while history is not None:
        entry, history = history
        yield entry
