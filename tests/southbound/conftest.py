from __future__ import annotations

import pytest

from gateway.app import AppSettings

from ..conftest import open_gateway, tariff_book_of
from .displays import PRICES
from .operators import Operator


@pytest.fixture
async def operator(gateway, nursery):
    operator = Operator(gateway, nursery)
    yield operator
    nursery.cancel_scope.cancel()


@pytest.fixture
async def gateway_with_displays():
    async with open_gateway(
        settings=AppSettings(driver_display=True), tariff_book=tariff_book_of(PRICES)
    ) as gateway:
        yield gateway
