from __future__ import annotations

import pytest

from gateway.northbound import mqtt


@pytest.fixture
def fast_retries(monkeypatch):
    """Attempts follow each other without long pauses."""
    monkeypatch.setattr("gateway.northbound.publisher._FIRST_RETRY_DELAY", 0.02)
    monkeypatch.setattr("gateway.northbound.publisher._MAX_RETRY_DELAY", 0.1)
    monkeypatch.setattr("gateway.northbound.rate_limits._SLOWEST", 0.1)


@pytest.fixture
def short_puback_timeout(monkeypatch):
    monkeypatch.setattr(mqtt, "PUBACK_TIMEOUT", 0.5)


@pytest.fixture
def short_deferrals(monkeypatch):
    """What is put off is sent again in seconds, not in a minute."""
    monkeypatch.setattr("gateway.northbound.deferrals.DEFERRAL_S", 0.5)
    monkeypatch.setattr("gateway.northbound.device_sessions._CHECK_EVERY", 0.2)
