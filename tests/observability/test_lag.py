"""Since when the oldest of what is not told has been waiting."""

from __future__ import annotations

from gateway.observability.lag import Timeline

DAY = 86_400


def test_nothing_is_known_before_anything_came():
    assert Timeline().oldest(1) is None


def test_an_entry_came_at_its_mark_or_a_little_later():
    timeline = Timeline()
    for seq in range(1, 1_001):
        timeline.note(seq, seq / 10)
    for seq in (1, 10, 500, 1_000):
        assert seq / 10 - 1 <= timeline.oldest(seq) <= seq / 10


def test_what_a_start_finds_is_older_than_what_it_noted_first():
    timeline = Timeline()
    timeline.note(100, 5.0)
    timeline.note(7, -3_600.0)
    assert timeline.oldest(7) == -3_600.0
    assert timeline.oldest(50) == -3_600.0
    assert timeline.oldest(100) == 5.0


def test_days_of_a_backlog_are_few_marks_and_still_told_to_the_minute():
    timeline = Timeline()
    for second in range(10 * DAY):
        timeline.note(second, float(second))
        assert len(timeline._seqs) <= 4_096
    for seq in (0, DAY, 5 * DAY, 9 * DAY, 10 * DAY - 1):
        assert 0 <= seq - timeline.oldest(seq) < 600


def test_once_a_backlog_is_told_the_lag_is_precise_again():
    timeline = Timeline()
    for second in range(10 * DAY):
        timeline.note(second, float(second))
    timeline.oldest(10 * DAY - 1)
    for second in range(10 * DAY, 10 * DAY + 2_000):
        timeline.note(second, float(second))
        assert second - timeline.oldest(second) < 600
    assert second - timeline.oldest(second) < 2
