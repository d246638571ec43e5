"""What becomes of an entry when ThingsBoard acknowledges, refuses or loses a message of it.  Pure.

Nothing here sends or waits.  The sender describes what it saw as `Evidence`, and asks.

Laws:
1.  A PUBACK below 0x80 is a delivery, also 0x10; from 0x80 on it is a refusal (MQTT 5 §3.4.2.1).
2.  A refusal of a message that carries several entries proves nothing against any one of them.  So
    each of its entries is sent again by itself, and only those at fault become dead letters.
3.  0x80 (unspecified error) and 0x97 (quota exceeded) speak of the server's state, not of the
    message.  The entry is deferred: it stays undone in the journal while all others go on, and is
    sent again on a new link (see `deferrals`).  0x97 also slows the rate limiter down.
4.  Every other refusal speaks of the message.  So does a size that no message may have, and a
    message at which the link ended MAX_ATTEMPTS times; neither is sent at all.  An entry that was
    refused like this MAX_ATTEMPTS times by itself becomes a dead letter.
5.  A device that ThingsBoard does not admit may be admitted later, when the tenant's limit of
    devices is raised: its entries are deferred like those of law 3.  A refused `connect` blames the
    device only where the server then admits the session log (see `device_sessions`).
6.  What was deferred on MAX_DEFERRALS links becomes a dead letter.  A deferral counts only where
    the server acknowledged signs of life in the end: a server that fails at everything makes no
    dead letters.
7.  A link that ends may have ended because of a message: one without a PUBACK, or one of the last
    few that were acknowledged, for some servers acknowledge and then close.  Such a message is sent
    again on the next link while no other message is on its way.  What happens next is its own
    doing.
8.  A link that ends at a message sent like this makes each entry of the message go by itself.  If
    it carried one entry only, and the server had acknowledged signs of life on that link, the loss
    counts against the message (law 4), or, if its PUBACK was 0x80, as a deferral (law 6).
9.  A link that the gateway ends itself is no message's fault.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence

import attrs

REFUSED = 0x80  # a PUBACK reason code from here on
UNSPECIFIED_ERROR = 0x80  # the PUBACK of a server that could not, whatever the message
QUOTA_EXCEEDED = 0x97  # the PUBACK to what exceeds a limit

MAX_ATTEMPTS = 3  # refusals of an entry by itself, or links that ended at a message
MAX_DEFERRALS = 3  # links on which an entry or a device may be deferred


class DeliveryOutcome(enum.Enum):
    DELIVERED = "ThingsBoard has it"
    RETRY = "sent again on the next link, while no other message is on its way"
    RETRY_ALONE = "sent again, in messages that carry no other entry"
    DEFER = "stays undone in the journal, and is sent again on a later link"
    DEAD_LETTER = "not sent any more; the journal keeps it, and why, for operators"


class Count(enum.Enum):
    """What the end of a link counts as, against the message that was sent last."""

    NOTHING = "another message, or the server, may have been the cause"
    LOSS = "one of MAX_ATTEMPTS"
    DEFERRAL = "one of MAX_DEFERRALS"


@attrs.frozen(kw_only=True)
class Evidence:
    """What is known of a message when the gateway has to decide what becomes of its entries.

    code: reason code of its PUBACK; None where there was none, or the message was not sent.
    admitted: whether ThingsBoard admits its device.
    too_large: its size in bytes where that is more than ThingsBoard takes, else 0.
    losses: links that ended at it when it was sent alone and carried one entry.
    refusals: how often its entry was refused by itself on this link, this time included; 0 while
        it shares messages with other entries.
    deferrals: links on which its entry, or its device where that is not admitted, was deferred.

    Where the link has ended (link_ended), for what was on its way or just acknowledged:
    sent_alone: it was the last message, was sent while no other was on its way, and the gateway
        did not end the link itself.
    one_entry: it carried one entry only.
    just_acknowledged: it was among the last few messages that were acknowledged.
    server_alive: the server had acknowledged signs of life on this link.
    """

    code: int | None = None
    admitted: bool = True
    too_large: int = 0
    losses: int = 0
    refusals: int = 0
    deferrals: int = 0
    link_ended: bool = False
    sent_alone: bool = False
    one_entry: bool = False
    just_acknowledged: bool = False
    server_alive: bool = False

    @property
    def refused(self) -> bool:
        return self.code is not None and self.code >= REFUSED

    @property
    def speaks_of_server(self) -> bool:
        return self.code in (UNSPECIFIED_ERROR, QUOTA_EXCEEDED)

    @property
    def may_have_ended_link(self) -> bool:
        return self.code is None or (self.refused and self.code != QUOTA_EXCEEDED)


@attrs.frozen
class Rule:
    """applies: to which evidence; of two rules that apply, the earlier one holds."""

    law: int
    applies: Callable[[Evidence], bool]
    outcome: DeliveryOutcome


_AFTER_LINK_END = (
    Rule(8, lambda e: e.sent_alone and e.may_have_ended_link, DeliveryOutcome.RETRY_ALONE),
    Rule(7, lambda e: e.code is None, DeliveryOutcome.RETRY),
    Rule(2, lambda e: e.refused and not e.speaks_of_server, DeliveryOutcome.RETRY_ALONE),
    Rule(7, lambda e: e.just_acknowledged, DeliveryOutcome.RETRY),
    Rule(3, lambda e: e.refused, DeliveryOutcome.DEFER),
    Rule(1, lambda _: True, DeliveryOutcome.DELIVERED),
)
_WHILE_LINK_LASTS = (
    Rule(1, lambda e: e.code is not None and not e.refused, DeliveryOutcome.DELIVERED),
    Rule(6, lambda e: e.deferrals >= MAX_DEFERRALS, DeliveryOutcome.DEAD_LETTER),
    Rule(5, lambda e: not e.admitted, DeliveryOutcome.DEFER),
    Rule(2, lambda e: e.refusals == 0, DeliveryOutcome.RETRY_ALONE),
    Rule(3, lambda e: e.speaks_of_server, DeliveryOutcome.DEFER),
    Rule(4, lambda e: e.refusals < MAX_ATTEMPTS, DeliveryOutcome.RETRY_ALONE),
    Rule(4, lambda _: True, DeliveryOutcome.DEAD_LETTER),
)


def is_accepted(code: int | None) -> bool:
    """Whether a PUBACK means that the server took the message (law 1); None: there was none."""
    return code is not None and code < REFUSED


def rule_for(evidence: Evidence) -> Rule:
    """The first rule that applies."""
    rules = _AFTER_LINK_END if evidence.link_ended else _WHILE_LINK_LASTS
    return next(rule for rule in rules if rule.applies(evidence))


def decide(evidence: Evidence) -> DeliveryOutcome:
    """What becomes of the entries of one message."""
    return rule_for(evidence).outcome


def count(evidence: Evidence) -> Count:
    """What the end of a link counts as against a message (law 8)."""
    alone = evidence.sent_alone and evidence.one_entry
    if not (alone and evidence.may_have_ended_link and evidence.server_alive):
        return Count.NOTHING
    return Count.DEFERRAL if evidence.code == UNSPECIFIED_ERROR else Count.LOSS


@attrs.frozen
class Decision:
    """reason: in an operator's words; empty where the entry is delivered."""

    outcome: DeliveryOutcome
    reason: str = ""


def decide_entry(failures: Sequence[Evidence]) -> Decision:
    """What becomes of an entry that was sent by itself.

    failures: of each message of it that was not delivered, in the order sent, then of each device
        that is not admitted.
    The first of them decides whether all are sent once more.  If they are not, a message that is
    not just deferred makes the whole entry a dead letter.
    """
    if not failures:
        return Decision(DeliveryOutcome.DELIVERED)
    outcomes = [decide(failure) for failure in failures]
    if outcomes[0] is DeliveryOutcome.RETRY_ALONE:
        return Decision(outcomes[0], reason(failures[0]))
    for failure, outcome in zip(failures, outcomes, strict=True):
        if outcome is not DeliveryOutcome.DEFER:
            return Decision(DeliveryOutcome.DEAD_LETTER, reason(failure))
    return Decision(DeliveryOutcome.DEFER, reason(failures[0]))


def reason(evidence: Evidence) -> str:
    """Why a message is not delivered, in an operator's words."""
    if not evidence.admitted:
        return "ThingsBoard does not admit the device: is a limit of devices reached?"
    if evidence.too_large:
        return f"{evidence.too_large} bytes are more than ThingsBoard takes"
    if evidence.losses >= MAX_ATTEMPTS:
        return f"the connection ended {MAX_ATTEMPTS} times when it was sent"
    if evidence.code is not None:
        return f"refused with code 0x{evidence.code:02x}"
    return "ThingsBoard failed at it for minutes, each time (0x80 or 0x97)"
