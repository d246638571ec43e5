"""Id tags refused one after another at a charge point: a security event when they become many.

One refused driver is no event for operators.  Several in a row, and none accepted in between,
look like a charge point with a wrong list, or a gateway with one.
"""

from __future__ import annotations

MANY = 3
TAGS_REFUSED = "IdTagsRefused"
TAG_ACCEPTED = "IdTagAccepted"


def count_refused(refused: int, status: str) -> tuple[int, str | None]:
    """The new number of refusals in a row, and the security event that says so, if one does.

    refused: the number before.  status: what the charge point was answered about an id tag.
    The event is published once for a row, and once more when the row ends.
    """
    if status == "Accepted":
        return 0, TAG_ACCEPTED if refused >= MANY else None
    return refused + 1, TAGS_REFUSED if refused + 1 == MANY else None
