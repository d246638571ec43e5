"""The parsers and a real socket under tens of thousands of bad frames."""

from __future__ import annotations

import json
import random
import re
import time
from collections import Counter
from itertools import count
from pathlib import Path

import pytest
import trio
from hypothesis import given, seed, settings

from ..fuzzing import feed_frame, feed_rpc, frame, rpc
from ..real.processes import charger, gateway
from ..real.retrying_charger import open_socket
from ..test_fuzzing import chances
from .conftest import SEED, share

pytestmark = [pytest.mark.soak, pytest.mark.real_time]

FRAMES, SEEDS = 20_000, 10
_AHEAD = 50  # frames sent before the answer to a Heartbeat among them is waited for


def rss_mib(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def test_no_frame_and_no_rpc_breaks_the_parsers():
    """Hypothesis again and again, so that what fails is made small."""
    print(f"\nSEED={SEED}", flush=True)
    deadline = time.monotonic() + share(0.1)
    for number in count(SEED):

        @seed(number)
        @settings(max_examples=2_000, deadline=None, database=None)
        @given(chances.map(frame), chances.map(rpc))
        def holds(text, payload):
            feed_frame(text)
            feed_rpc(payload)

        holds()
        if time.monotonic() > deadline:
            print(f"{(number - SEED + 1) * 2_000} examples")
            return


async def test_no_frames_over_a_socket_break_the_gateway(site):
    """HC-148: 20,000 messages with each of 10 seeds; other charge points notice nothing."""
    print(f"\nSEED={SEED}", flush=True)
    async with gateway(site) as program, charger(site.url, "OTHER", site.folder) as other:
        before = rss_mib(program.process.pid)
        slowest = 0.0
        async with trio.open_nursery() as nursery:

            async def watch():
                nonlocal slowest
                while True:
                    sent_at = trio.current_time()
                    await other.ask("Heartbeat")
                    slowest = max(slowest, trio.current_time() - sent_at)
                    await trio.sleep(0.2)

            nursery.start_soon(watch)
            async with trio.open_nursery() as fuzzing:
                for number in range(SEEDS):
                    fuzzing.start_soon(fuzz, site, SEED + number)
            nursery.cancel_scope.cancel()
        grown = rss_mib(program.process.pid) - before
        print(f"slowest heartbeat of another {slowest:.3f} s, memory +{grown:.0f} MiB")
        assert slowest < 1
        assert grown < 150
        assert await program.stop() == 0
    assert '"level": "error"' not in program.complaint()


async def fuzz(site, number):
    """Everything that comes back can be read, and nothing is answered twice."""
    chance = random.Random(number)
    answered: Counter[str] = Counter()
    async with open_socket(site.ocpp, f"FUZZ-{number}") as socket:
        for first in range(0, FRAMES, _AHEAD):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read_answers, socket, f"end-{first}", answered)
                for n in range(first, first + _AHEAD):
                    await socket.send_message(frame(chance, f"message-{n:05}"))
                await socket.send_message(json.dumps([2, f"end-{first}", "Heartbeat", {}]))
    assert max(answered.values()) == 1, answered.most_common(3)
    assert sum(answered.values()) > FRAMES / 4


async def read_answers(socket, last, answered):
    with trio.fail_after(60):
        while True:
            kind, unique_id, *_ = json.loads(await socket.get_message())
            if kind == 2:
                await socket.send_message(json.dumps([4, unique_id, "NotSupported", "", {}]))
                continue
            assert kind in (3, 4)
            if unique_id == last:
                return
            if re.fullmatch(r"message-\d{5}", str(unique_id)):  # others may be of several frames
                answered[unique_id] += 1
