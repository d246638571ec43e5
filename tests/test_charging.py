"""From the plug to the price, through both doors."""

from __future__ import annotations

import trio

from gateway.domain.events import TransactionSettled

from .doors import CONNECT

HOUR = 3600


async def test_a_charge_is_priced_from_its_registers(gateway):
    """10 kWh in an hour at 0.30 EUR/kWh cost 3.00 EUR, and ThingsBoard hears of it."""
    async with gateway.charger("CP-1") as charger:
        await charger.boot()
        await charger.status("Charging")
        tx = await charger.start(meter_wh=1_000)
        await trio.sleep(HOUR / 2)
        await charger.sample(tx, "6.0", unit="kWh")
        await gateway.settled()
        live = gateway.board.latest("CP-1/1")
        await trio.sleep(HOUR / 2)
        await charger.stop(tx, meter_wh=11_000)
        await gateway.settled()

    assert (live["tx_active"], live["tx_energy_wh"], live["cost_total"]) == (True, 5000, 1.50)
    (settled,) = gateway.events(TransactionSettled)
    assert settled.receipt["energy_wh"] == "10000"
    assert settled.receipt["total_incl_vat"] == "3.00"
    final = gateway.board.latest("CP-1/1")
    assert (final["tx_active"], final["session_cost"], final["session_energy_kwh"]) == (
        False,
        3.00,
        10,
    )
    log = gateway.board.latest("ocpp-gateway sessions")
    assert (log["session_charge_point"], log["session_connector"]) == ("CP-1", 1)
    assert log["receipt"]["receipt_id"] == settled.receipt["receipt_id"]
    assert {"device": "CP-1", "type": "EV charger"} in gateway.board.about(CONNECT)
    assert {"device": "CP-1/1", "type": "EV connector"} in gateway.board.about(CONNECT)
