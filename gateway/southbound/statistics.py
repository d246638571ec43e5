"""What all connections of charge points have seen since the start, for metrics."""

from __future__ import annotations

from collections import Counter

import attrs

from ..domain.histogram import Histogram

REFUSAL_REASONS = ("full", "no_id", "password", "profile", "stopping", "subprotocol",
            "taken", "tls", "unknown")  # fmt: skip
"""Why a connection is refused, in a word for metrics."""


@attrs.define
class ConnectionStatistics:
    """What all connections have seen since the start, for metrics.

    requests: by action and outcome (answered or refused).  request_seconds: from the arrival of
        one to its response.  deviating_requests: requests and responses that broke a schema but
        were read.
    rejected_frames: frames, by code.
    calls: by action and outcome (answered, refused, invalid, timeout, gone).  call_seconds: from
        the sending of one to its response, whatever that is.
    refused_handshakes: by reason.  unfinished_handshakes: connections that ended before their
        handshake did.
    throttled_frames: frames of charge points that sent too fast, each read before a pause.
    """

    requests: Counter[tuple[str, ...]] = attrs.field(factory=Counter)
    request_seconds: Histogram = attrs.field(factory=Histogram)
    deviating_requests: int = 0
    throttled_frames: int = 0
    unfinished_handshakes: int = 0
    rejected_frames: Counter[str] = attrs.field(factory=Counter)
    calls: Counter[tuple[str, ...]] = attrs.field(factory=Counter)
    call_seconds: Histogram = attrs.field(factory=Histogram)
    refused_handshakes: Counter[str] = attrs.field(
        factory=lambda: Counter(dict.fromkeys(REFUSAL_REASONS, 0))
    )
