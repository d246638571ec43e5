"""Id tags refused one after another."""

from __future__ import annotations

import pytest

from gateway.domain.refused_tags import TAG_ACCEPTED, TAGS_REFUSED, count_refused


@pytest.mark.parametrize(
    ("statuses", "told"),
    [
        (["Invalid", "Blocked"], []),
        (["Invalid", "Blocked", "Expired"], [TAGS_REFUSED]),
        (["Invalid"] * 7, [TAGS_REFUSED]),
        (["Invalid", "Invalid", "Accepted", "Invalid", "Invalid"], []),
        (["Accepted", "Accepted"], []),
        (["Invalid"] * 4 + ["Accepted", "Accepted"], [TAGS_REFUSED, TAG_ACCEPTED]),
        (
            ["Blocked"] * 3 + ["Accepted"] + ["Blocked"] * 3 + ["Accepted"],
            [TAGS_REFUSED, TAG_ACCEPTED] * 2,
        ),
    ],
)
def test_the_third_in_a_row_is_told_and_so_is_the_end_of_the_row(statuses, told):
    refused, events = 0, []
    for status in statuses:
        refused, event = count_refused(refused, status)
        events += [event] if event else []
    assert events == told
