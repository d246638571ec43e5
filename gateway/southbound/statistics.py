"""What all connections of charge points have seen since the start, for metrics."""

from __future__ import annotations

from collections import Counter

import attrs

from ..domain.histogram import Histogram

REFUSALS = ("full", "no_id", "password", "profile", "stopping", "subprotocol",
            "taken", "tls", "unknown")  # fmt: skip
"""Why a connection is not let in, in a word for metrics."""


@attrs.define
class Tally:
    """What all connections have seen since the start, for metrics.

    requests: by action and outcome (answered or refused).  request_seconds: from the arrival of
        one to its answer.  bent: requests and answers that broke a schema but were read.
    rejected: frames, by code.
    calls: by action and outcome (answered, refused, invalid, timeout, gone).  call_seconds: from
        the sending of one to its answer, whatever it says.
    handshakes: refused, by reason.  unfinished: connections that ended before theirs did.
    throttled: frames of those who were made to wait, for they sent too much.
    """

    requests: Counter[tuple[str, ...]] = attrs.field(factory=Counter)
    request_seconds: Histogram = attrs.field(factory=Histogram)
    bent: int = 0
    throttled: int = 0
    unfinished: int = 0
    rejected: Counter[str] = attrs.field(factory=Counter)
    calls: Counter[tuple[str, ...]] = attrs.field(factory=Counter)
    call_seconds: Histogram = attrs.field(factory=Histogram)
    handshakes: Counter[str] = attrs.field(factory=lambda: Counter(dict.fromkeys(REFUSALS, 0)))
