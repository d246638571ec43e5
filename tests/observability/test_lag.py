"""Since when the oldest of what is not delivered has been waiting."""

from __future__ import annotations

from gateway.observability.lag import LagClock

DAY = 86_400


def test_nothing_is_known_before_anything_came():
    assert LagClock().oldest_at(1) is None


def test_an_entry_came_at_its_mark_or_a_little_later():
    timeline = LagClock()
    for seq in range(1, 1_001):
        timeline.mark(seq, seq / 10)
    for seq in (1, 10, 500, 1_000):
        assert seq / 10 - 1 <= timeline.oldest_at(seq) <= seq / 10


def test_what_a_start_finds_is_older_than_what_it_noted_first():
    timeline = LagClock()
    timeline.mark(100, 5.0)
    timeline.mark(7, -3_600.0)
    assert timeline.oldest_at(7) == -3_600.0
    assert timeline.oldest_at(50) == -3_600.0
    assert timeline.oldest_at(100) == 5.0


def test_days_of_a_backlog_are_few_marks_and_still_exact_to_the_minute():
    timeline = LagClock()
    for second in range(10 * DAY):
        timeline.mark(second, float(second))
        assert len(timeline._seqs) <= 4_096
    for seq in (0, DAY, 5 * DAY, 9 * DAY, 10 * DAY - 1):
        assert 0 <= seq - timeline.oldest_at(seq) < 600


def test_once_a_backlog_is_delivered_the_lag_is_precise_again():
    timeline = LagClock()
    for second in range(10 * DAY):
        timeline.mark(second, float(second))
    timeline.oldest_at(10 * DAY - 1)
    for second in range(10 * DAY, 10 * DAY + 2_000):
        timeline.mark(second, float(second))
        assert second - timeline.oldest_at(second) < 600
    assert second - timeline.oldest_at(second) < 2
