"""SIGHUP: the tariff file is read again, and a faulty one changes nothing."""

from __future__ import annotations

import json
import signal

import pytest

from .processes import DAY, TARIFFS, Site, charger, eventually, gateway, get

pytestmark = pytest.mark.real_time


def priced(per_kwh):
    document = json.loads(json.dumps(TARIFFS))
    document["tariffs"][0]["elements"][0]["price_components"][0]["price"] = per_kwh
    return document


def totals(site):
    rows = site.rows("select body from receipt order by published_ms")
    return [json.loads(body)["total_excl_vat"] for (body,) in rows]


async def test_a_reload_prices_what_starts_from_then_on(tmp_path):
    """HC-138: 10 kWh at 0.25 and 1.00 for the start are 3.50; at 0.50 they are 6.00."""
    site = Site(tmp_path)
    site.configure()
    tariffs = tmp_path / "tariffs.json"

    async def reloaded(content, outcome, program):
        before = await _count(site, outcome)
        tariffs.write_text(content)
        program.process.send_signal(signal.SIGHUP)
        while await _count(site, outcome) == before:
            pass

    async with gateway(site) as program, charger(site.url, "CP-1", tmp_path) as one:
        running = await one.start(0, f"{DAY}T10:00:00Z")
        await reloaded(json.dumps(priced(0.50)), "taken", program)
        await one.stop(running, 10_000, f"{DAY}T11:00:00Z")
        after = await one.start(10_000, f"{DAY}T12:00:00Z")
        await reloaded('{"tariffs": [{"id": "X"}]}', "refused", program)
        await one.stop(after, 20_000, f"{DAY}T13:00:00Z")
        still = await one.start(20_000, f"{DAY}T14:00:00Z")
        await one.stop(still, 30_000, f"{DAY}T15:00:00Z")
        await eventually(lambda: len(totals(site)) == 3)
    assert totals(site) == ["3.50", "6.00", "6.00"]
    assert "the old ones stay" in program.complaint()
    assert "tariffs[0]" in program.complaint()


async def _count(site, outcome):
    _, text = await get(site.admin, "/metrics")
    name = f'ocpp_gateway_tariff_reloads_total{{outcome="{outcome}"}}'
    (line,) = [line for line in text.decode().splitlines() if line.startswith(name)]
    return float(line.rpartition(" ")[2])
