"""A busy machine is no fault of the code: no deadline for a single example."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("northbound", deadline=None)
settings.load_profile("northbound")
