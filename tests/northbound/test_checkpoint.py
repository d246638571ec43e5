"""The place in the journal, beside a set of numbers that it must agree with."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.northbound.checkpoint import CheckpointTracker

_RUNS = st.lists(
    st.tuples(st.integers(1, 30), st.integers(0, 6)).map(lambda run: (run[0], sum(run))),
    max_size=10,
)


@given(st.integers(0, 6), _RUNS, st.integers(0, 40))
def test_it_knows_what_is_done_and_what_is_left(seq, runs, upto):
    place, done = CheckpointTracker(seq), set(range(1, seq + 1))
    for first, last in runs:
        place.mark_done(first, last)
        done |= {*range(first, last + 1)}
    left = [n for n in range(1, upto + 1) if n not in done]
    assert [n for first, last in place.remaining(upto) for n in range(first, last + 1)] == left
    assert place.count_remaining(upto) == len(left)
    assert all(place.is_done(n) is (n in done) for n in range(1, 41))
    assert place.seq + 1 not in done
    assert place.seq == 0 or place.seq in done


@given(st.integers(0, 6), _RUNS)
def test_what_is_saved_of_it_is_all_of_it_and_as_short_as_can_be(seq, runs):
    place = CheckpointTracker(seq)
    for first, last in runs:
        place.mark_done(first, last)
    again = CheckpointTracker(place.seq, place.ahead)
    assert (again.seq, again.ahead) == (place.seq, place.ahead)
    ends = [place.seq, *(end for run in place.ahead for end in run)]
    assert all(first > last + 1 for last, first in zip(ends[::2], ends[1::2], strict=False))


@given(st.integers(0, 6), _RUNS, st.integers(1, 9), st.integers(0, 9), st.sets(st.integers(1, 20)))
def test_what_is_put_off_is_left_and_the_rest_is_done(seq, runs, first, length, put_off):
    place, last = CheckpointTracker(seq), first + length
    for run in runs:
        place.mark_done(*run)
    before = {n for n in range(1, 41) if place.is_done(n)}
    undone = {n for n in put_off if first <= n <= last}
    place.mark_done_except(first, last, undone)
    after = {n for n in range(1, 41) if place.is_done(n)}
    assert after == before | ({*range(first, last + 1)} - undone)
    assert all(
        place.is_overtaken(n) is any(later > n for later in after)
        for n in range(1, 37)
        if n not in after
    )
