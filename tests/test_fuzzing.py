"""The parsers under what nobody should send; `make soak` goes on for longer."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .fuzzing import feed_frame, feed_rpc, frame, rpc

#: Hypothesis' own chance, so that what fails is made as simple as can be.
chances = st.randoms(use_true_random=False)


@given(chances.map(frame))
@settings(max_examples=300, deadline=None)
def test_no_frame_breaks_what_reads_keeps_and_tells_it(text):
    feed_frame(text)


@given(chances.map(rpc))
@settings(max_examples=300, deadline=None)
def test_no_rpc_breaks_what_reads_and_answers_it(payload):
    feed_rpc(payload)


@pytest.mark.parametrize("seed", range(4))
def test_nor_do_thousands_from_a_seed(seed):
    """As `make soak` sends them over a socket (HC-148)."""
    chance = random.Random(seed)
    for _ in range(2_000):
        feed_frame(frame(chance))
        feed_rpc(rpc(chance))
