"""Long forms of what the suite does in a minute: `make soak`, for SOAK_MINUTES=10 or as many."""

from __future__ import annotations

import os
import random

import pytest

from ..real.processes import Site

MINUTES = float(os.environ.get("SOAK_MINUTES", "10"))
SEED = int(os.environ.get("SEED") or random.SystemRandom().randrange(10**6))


def share(part: float) -> float:
    """Seconds that one of the tests may take."""
    return MINUTES * 60 * part


@pytest.fixture
def site(tmp_path):
    site = Site(tmp_path)
    site.configure()
    return site
