"""What becomes of an entry, as a table: one line per situation, and the law that decides it."""

from __future__ import annotations

import attrs
import pytest

from gateway.northbound import delivery_policy
from gateway.northbound.delivery_policy import (
    MAX_ATTEMPTS,
    MAX_DEFERRALS,
    Count,
    Decision,
    DeliveryOutcome,
    Evidence,
    Rule,
    count,
    decide,
    decide_entry,
    is_accepted,
    reason,
    rule_for,
)

DELIVERED, RETRY = DeliveryOutcome.DELIVERED, DeliveryOutcome.RETRY
RETRY_ALONE, DEFER = DeliveryOutcome.RETRY_ALONE, DeliveryOutcome.DEFER
DEAD_LETTER = DeliveryOutcome.DEAD_LETTER

WHILE_LINK_LASTS = [
    # a PUBACK that accepts
    (1, Evidence(code=0x00), DELIVERED),
    (1, Evidence(code=0x10), DELIVERED),
    (1, Evidence(code=0x7F), DELIVERED),
    (1, Evidence(code=0x00, refusals=2, deferrals=2), DELIVERED),
    # a message of several entries, refused or not sent
    (2, Evidence(code=0x80), RETRY_ALONE),
    (2, Evidence(code=0x97), RETRY_ALONE),
    (2, Evidence(code=0x83), RETRY_ALONE),
    (2, Evidence(code=0x99), RETRY_ALONE),
    (2, Evidence(too_large=70_000), RETRY_ALONE),
    (2, Evidence(losses=MAX_ATTEMPTS), RETRY_ALONE),
    (2, Evidence(deferrals=MAX_DEFERRALS - 1), RETRY_ALONE),
    # an entry by itself: the code speaks of the server
    (3, Evidence(code=0x80, refusals=1), DEFER),
    (3, Evidence(code=0x97, refusals=1), DEFER),
    (3, Evidence(code=0x80, refusals=MAX_ATTEMPTS), DEFER),
    (3, Evidence(code=0x97, refusals=1, deferrals=MAX_DEFERRALS - 1), DEFER),
    # an entry by itself: the refusal speaks of the message
    (4, Evidence(code=0x83, refusals=1), RETRY_ALONE),
    (4, Evidence(code=0x99, refusals=MAX_ATTEMPTS - 1), RETRY_ALONE),
    (4, Evidence(code=0x83, refusals=MAX_ATTEMPTS), DEAD_LETTER),
    (4, Evidence(code=0x99, refusals=MAX_ATTEMPTS), DEAD_LETTER),
    (4, Evidence(too_large=70_000, refusals=1), RETRY_ALONE),
    (4, Evidence(too_large=70_000, refusals=MAX_ATTEMPTS), DEAD_LETTER),
    (4, Evidence(losses=MAX_ATTEMPTS, refusals=1), RETRY_ALONE),
    (4, Evidence(losses=MAX_ATTEMPTS, refusals=MAX_ATTEMPTS), DEAD_LETTER),
    # a device that is not admitted
    (5, Evidence(admitted=False), DEFER),
    (5, Evidence(admitted=False, deferrals=MAX_DEFERRALS - 1), DEFER),
    (6, Evidence(admitted=False, deferrals=MAX_DEFERRALS), DEAD_LETTER),
    # deferred too often
    (6, Evidence(deferrals=MAX_DEFERRALS), DEAD_LETTER),
    (6, Evidence(code=0x80, refusals=1, deferrals=MAX_DEFERRALS), DEAD_LETTER),
]

AFTER_LINK_END = [
    (7, Evidence(), RETRY),
    (7, Evidence(one_entry=True, server_alive=True), RETRY),
    (7, Evidence(code=0x00, just_acknowledged=True), RETRY),
    (7, Evidence(code=0x80, just_acknowledged=True), RETRY),
    (7, Evidence(code=0x97, just_acknowledged=True), RETRY),
    (7, Evidence(code=0x97, just_acknowledged=True, sent_alone=True), RETRY),
    (7, Evidence(code=0x00, just_acknowledged=True, sent_alone=True), RETRY),
    (1, Evidence(code=0x00), DELIVERED),
    (3, Evidence(code=0x80), DEFER),
    (3, Evidence(code=0x97), DEFER),
    (2, Evidence(code=0x83), RETRY_ALONE),
    (2, Evidence(code=0x99, just_acknowledged=True), RETRY_ALONE),
    (8, Evidence(sent_alone=True), RETRY_ALONE),
    (8, Evidence(sent_alone=True, code=0x80, just_acknowledged=True), RETRY_ALONE),
    (8, Evidence(sent_alone=True, code=0x99, just_acknowledged=True), RETRY_ALONE),
]


@pytest.mark.parametrize(("law", "evidence", "outcome"), WHILE_LINK_LASTS, ids=str)
def test_while_the_link_lasts(law, evidence, outcome):
    assert (rule_for(evidence).law, decide(evidence)) == (law, outcome)


@pytest.mark.parametrize(("law", "evidence", "outcome"), AFTER_LINK_END, ids=str)
def test_after_the_end_of_the_link(law, evidence, outcome):
    evidence = attrs.evolve(evidence, link_ended=True)
    assert (rule_for(evidence).law, decide(evidence)) == (law, outcome)


def test_no_rule_is_idle():
    """Each rule decides a line of the tables above."""
    lines = [evidence for _, evidence, _ in WHILE_LINK_LASTS]
    lines += [attrs.evolve(evidence, link_ended=True) for _, evidence, _ in AFTER_LINK_END]
    applied = {id(rule_for(evidence)) for evidence in lines}
    rules = [*delivery_policy._WHILE_LINK_LASTS, *delivery_policy._AFTER_LINK_END]
    assert all(isinstance(rule, Rule) for rule in rules)
    assert applied == {id(rule) for rule in rules}


ALONE = Evidence(link_ended=True, sent_alone=True, one_entry=True, server_alive=True)


@pytest.mark.parametrize(
    ("evidence", "counts_as"),
    [
        (ALONE, Count.LOSS),
        (attrs.evolve(ALONE, code=0x83), Count.LOSS),
        (attrs.evolve(ALONE, code=0x99), Count.LOSS),
        (attrs.evolve(ALONE, code=0x80), Count.DEFERRAL),
        (attrs.evolve(ALONE, code=0x97), Count.NOTHING),
        (attrs.evolve(ALONE, code=0x00), Count.NOTHING),
        (attrs.evolve(ALONE, sent_alone=False), Count.NOTHING),
        (attrs.evolve(ALONE, one_entry=False), Count.NOTHING),
        (attrs.evolve(ALONE, server_alive=False), Count.NOTHING),
        (attrs.evolve(ALONE, server_alive=False, code=0x80), Count.NOTHING),
    ],
    ids=str,
)
def test_what_the_end_of_a_link_counts_as(evidence, counts_as):
    assert count(evidence) is counts_as


PERMANENT = Evidence(code=0x99, refusals=MAX_ATTEMPTS)
AGAIN = Evidence(code=0x99, refusals=1)
SERVER = Evidence(code=0x80, refusals=1)
DEVICE = Evidence(admitted=False)
DEVICE_TOO_OFTEN = Evidence(admitted=False, deferrals=MAX_DEFERRALS)


@pytest.mark.parametrize(
    ("failures", "outcome", "of"),
    [
        ((), DELIVERED, None),
        ((SERVER,), DEFER, SERVER),
        ((AGAIN,), RETRY_ALONE, AGAIN),
        ((AGAIN, SERVER), RETRY_ALONE, AGAIN),
        ((AGAIN, DEVICE), RETRY_ALONE, AGAIN),
        ((PERMANENT,), DEAD_LETTER, PERMANENT),
        ((PERMANENT, SERVER), DEAD_LETTER, PERMANENT),
        ((SERVER, AGAIN), DEAD_LETTER, AGAIN),
        ((SERVER, SERVER), DEFER, SERVER),
        ((DEVICE,), DEFER, DEVICE),
        ((SERVER, DEVICE), DEFER, SERVER),
        ((DEVICE, DEVICE_TOO_OFTEN), DEAD_LETTER, DEVICE_TOO_OFTEN),
        ((SERVER, DEVICE_TOO_OFTEN), DEAD_LETTER, DEVICE_TOO_OFTEN),
    ],
)
def test_what_becomes_of_an_entry_of_several_messages(failures, outcome, of):
    assert decide_entry(failures) == Decision(outcome, "" if of is None else reason(of))


@pytest.mark.parametrize(
    ("evidence", "text"),
    [
        (PERMANENT, "refused with code 0x99"),
        (SERVER, "refused with code 0x80"),
        (Evidence(too_large=70_000), "70000 bytes are more than ThingsBoard takes"),
        (Evidence(losses=MAX_ATTEMPTS), "the connection ended 3 times when it was sent"),
        (Evidence(deferrals=MAX_DEFERRALS), "ThingsBoard failed at it for minutes"),
        (DEVICE, "ThingsBoard does not admit the device"),
    ],
)
def test_the_reason_is_in_an_operators_words(evidence, text):
    assert text in reason(evidence)


@pytest.mark.parametrize(
    ("code", "accepted"), [(0, True), (0x10, True), (0x7F, True), (0x80, False), (None, False)]
)
def test_a_puback_below_0x80_accepts(code, accepted):
    assert is_accepted(code) is accepted
