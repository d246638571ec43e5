"""HYPOTHESIS_PROFILE=thorough looks twenty times as hard."""

from __future__ import annotations

import os

from hypothesis import settings

# A busy machine is no fault of the code: no deadline for a single example.
settings.register_profile("domain", deadline=None)
settings.register_profile("thorough", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "domain"))
