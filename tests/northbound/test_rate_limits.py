"""What the server allows is read leniently and kept to strictly."""

from __future__ import annotations

import json

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.northbound.rate_limits import MAX_BYTES, MessageCost, RateLimiter


def learnt(**limits) -> RateLimiter:
    limiter = RateLimiter()
    limiter.apply_limits(json.dumps(limits).encode())
    return limiter


async def test_without_an_answer_nothing_is_waited_for():
    limiter = RateLimiter()
    for _ in range(10_000):
        await limiter.wait_to_send()
        await limiter.wait_to_send_telemetry(MessageCost(100, 10_000))
    assert trio.current_time() == 0
    assert (limiter.max_bytes, limiter.max_values) == (MAX_BYTES, None)


async def test_a_smaller_message_is_kept_to_and_a_larger_one_is_not_used():
    assert learnt(maxPayloadSize=32_768).max_bytes == 27_768
    assert learnt(maxPayloadSize=1_000_000).max_bytes == MAX_BYTES
    assert learnt(maxPayloadSize=10).max_bytes == MAX_BYTES


@pytest.mark.parametrize(
    "payload",
    [b"", b"{", b"\xff", b"[]", b"null", b'{"gatewayRateLimits":[],"maxPayloadSize":"x"}',
     b'{"gatewayRateLimits":{"messages":5,"telemetryMessages":"a:b,:,0:1,1:0,-1:1"}}'],
)  # fmt: skip
async def test_what_cannot_be_read_changes_nothing(payload):
    limiter = RateLimiter()
    limiter.apply_limits(payload)
    await limiter.wait_to_send()
    await limiter.wait_to_send_telemetry(MessageCost(1_000, 1_000))
    assert (trio.current_time(), limiter.max_bytes) == (0, MAX_BYTES)


async def test_messages_go_at_four_fifths_of_the_rate_after_a_bucketful():
    """100 in 10 s: 80 at once, then 8 a second."""
    limiter = learnt(gatewayRateLimits={"messages": "100:10"})
    for _ in range(80):
        await limiter.wait_to_send()
    assert trio.current_time() == 0
    for _ in range(80):
        await limiter.wait_to_send()
    assert trio.current_time() == pytest.approx(10)


async def test_the_strictest_of_several_rates_holds():
    limiter = learnt(gatewayRateLimits={"telemetryDataPoints": "1000:1,6000:60"})
    assert limiter.max_values == 800
    for _ in range(20):
        await limiter.wait_to_send_telemetry(MessageCost(1, 800))
    assert trio.current_time() == pytest.approx((16_000 - 4_800) / 80, rel=0.05)


async def test_a_message_above_a_bucketful_waits_for_a_full_one_and_goes():
    limiter = learnt(gatewayRateLimits={"telemetryMessages": "10:1"})
    await limiter.wait_to_send_telemetry(MessageCost(50, 1))
    await limiter.wait_to_send_telemetry(MessageCost(50, 1))
    assert 1 < trio.current_time() < 10


@given(
    st.integers(1, 50),
    st.integers(1, 20),
    st.lists(st.tuples(st.integers(1, 5), st.floats(0, 3)), min_size=1, max_size=60),
)
@settings(max_examples=100, deadline=None)
def test_no_span_of_time_ever_sees_more_than_the_server_allows(count, seconds, sent):
    """Whatever the pauses: in any span of the rate's length, at most twice a bucket's share."""
    paid: list[tuple[float, int]] = []

    async def main() -> None:
        limiter = learnt(gatewayRateLimits={"telemetryMessages": f"{count}:{seconds}"})
        for devices, pause in sent:
            await limiter.wait_to_send_telemetry(MessageCost(devices, 1))
            paid.append((trio.current_time(), devices))
            await trio.sleep(pause)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    size = max(1.0, count * 0.8)
    for begin, _ in paid:
        spent = sum(devices for at, devices in paid if begin <= at < begin + seconds)
        assert spent <= 2 * size + 5


async def test_what_is_urgent_goes_before_what_can_wait():
    limiter, went = learnt(gatewayRateLimits={"telemetryMessages": "10:1"}), []

    async def send(name: str, urgent: bool) -> None:
        await limiter.wait_to_send_telemetry(MessageCost(1, 1), urgent=urgent)
        went.append(name)

    async with trio.open_nursery() as nursery:
        for _ in range(30):
            nursery.start_soon(send, "old", False)
        await trio.sleep(1.0)
        for _ in range(30):
            nursery.start_soon(send, "new", True)
    before = went.index("new")
    assert 8 <= before < 20
    assert went[before : before + 30] == ["new"] * 30


async def test_the_limits_are_waited_for_but_once_and_not_for_ever():
    limiter = RateLimiter()
    await limiter.wait_limits_known()
    assert trio.current_time() == 5
    await limiter.wait_limits_known()
    assert trio.current_time() == 5


async def test_an_answer_ends_the_wait_for_it():
    limiter = RateLimiter()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(limiter.wait_limits_known)
        await trio.sleep(1)
        limiter.apply_limits(b'{"maxPayloadSize":65536}')
    assert trio.current_time() == 1


async def test_what_was_spent_on_one_link_is_spent_on_the_next():
    """Each link asks again; a bucket of the same rate stays as full as it was."""
    limits = b'{"gatewayRateLimits":{"telemetryMessages":"100:10"}}'
    limiter = RateLimiter()
    limiter.apply_limits(limits)
    for _ in range(80):
        await limiter.wait_to_send_telemetry(MessageCost(1, 1))
    limiter.apply_limits(limits)
    await limiter.wait_to_send_telemetry(MessageCost(1, 1))
    assert trio.current_time() == pytest.approx(10 / 80)
    limiter.apply_limits(b'{"gatewayRateLimits":{"telemetryMessages":""}}')
    await limiter.wait_to_send_telemetry(MessageCost(1_000, 1))
    assert trio.current_time() == pytest.approx(10 / 80)


async def test_a_limit_that_is_hit_leaves_nothing_to_spend():
    limiter = learnt(gatewayRateLimits={"messages": "100:10"})
    limiter.limit_exceeded()
    await limiter.wait_to_send()
    assert trio.current_time() == pytest.approx(10 / 80)


async def test_a_limit_that_nobody_told_of_slows_down_and_is_forgotten_in_time():
    limiter = RateLimiter()
    for _ in range(20):
        limiter.limit_exceeded()
    for _ in range(5):
        await limiter.wait_to_send_telemetry(MessageCost(1, 1))
    assert trio.current_time() == 25
    while True:
        began = trio.current_time()
        await limiter.wait_to_send_telemetry(MessageCost(1, 1))
        if trio.current_time() == began:
            break
    assert 300 < trio.current_time() < 700
