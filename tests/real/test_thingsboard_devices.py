"""Sessions of devices that are lost, and RPC (F8 to F11), with each kind of ThingsBoard."""

from __future__ import annotations

import json

import pytest
import trio

from gateway.simulation.thingsboard import RpcNoSession, RpcTimeout

from .brokers import wait_until
from .connected_gateway import (
    LOG,
    on_each,
    open_connected_gateway,
)

pytestmark = [pytest.mark.real_time, pytest.mark.waits, pytest.mark.usefixtures("fast_retries")]


@on_each
async def test_f8_a_session_that_was_lost_unseen_is_there_again_with_the_next_value(profile):
    async with open_connected_gateway(profile) as setup, setup.gateway.charger("CP-1") as charger:
        await charger.status("Available")
        await setup.all_stored()
        setup.thingsboard.lose_session("CP-1/1")
        setup.thingsboard._min_rpc_timeout = 0.2
        with pytest.raises(RpcNoSession):
            await setup.thingsboard.rpc("CP-1/1", "remoteStop", timeout=0.2)
        await charger.status("Preparing")
        await wait_until(lambda: setup.thingsboard.devices["CP-1/1"].connected)
        answer = await setup.thingsboard.rpc("CP-1/1", "remoteStop", timeout=5)
        assert answer == {"status": "Rejected", "reason": "NoTransaction"}
        await setup.all_stored()


@on_each
async def test_f8_a_session_that_was_lost_unseen_is_there_again_with_a_sign_of_life(
    profile, monkeypatch
):
    monkeypatch.setattr("gateway.northbound.device_sessions._KEEP_ALIVE_EVERY", 0.8)
    monkeypatch.setattr("gateway.northbound.device_sessions._CHECK_EVERY", 0.1)
    async with open_connected_gateway(profile) as setup, setup.gateway.charger("CP-1") as charger:
        await charger.status("Available")
        await setup.all_stored()
        for device in ("CP-1", "CP-1/1", LOG):
            setup.thingsboard.lose_session(device)
        await wait_until(
            lambda: all(setup.thingsboard.devices[d].connected for d in ("CP-1", "CP-1/1", LOG))
        )
        await setup.all_stored()


@on_each
async def test_f9_hc_127_an_rpc_that_is_sent_again_after_a_reconnect_is_carried_out_once(profile):
    async with open_connected_gateway(profile) as setup, setup.gateway.charger("CP-1") as charger:
        await charger.boot()
        await setup.all_stored()
        answers = []

        async def call() -> None:
            answers.append(await setup.thingsboard.rpc("CP-1", "ClearCache", {}, timeout=20))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            number, action, _ = await charger.next_call()
            setup.thingsboard.disconnect_all()
            await wait_until(lambda: setup.thingsboard.devices["CP-1"].connected)
            setup.thingsboard.resend_rpcs("CP-1")
            await charger.reply(number, status="Rejected")
        assert (action, answers) == ("ClearCache", [{"status": "Rejected"}])
        assert charger.calls.statistics().current_buffer_used == 0
        await setup.all_stored()


@on_each
@pytest.mark.parametrize("params", [None, True, "x", {}], ids=json.dumps)
async def test_f10_hc_126_id_0_and_params_of_any_kind(profile, params):
    async with open_connected_gateway(profile) as setup, setup.gateway.charger("CP-1") as charger:
        await charger.boot()
        await setup.all_stored()
        assert setup.thingsboard.devices["CP-1"].next_rpc_id == 0
        if params in (None, {}):
            async with trio.open_nursery() as nursery:

                async def accept() -> None:
                    number, _, payload = await charger.next_call()
                    assert payload == {}
                    await charger.reply(number, status="Accepted")

                nursery.start_soon(accept)
                answer = await setup.thingsboard.rpc("CP-1", "ClearCache", params)
            assert answer == {"status": "Accepted"}
        else:
            answer = await setup.thingsboard.rpc("CP-1", "ClearCache", params)
            assert answer["error"]["code"] == "InvalidParams"
        await setup.all_stored()


@on_each
async def test_f11_hc_126_an_unknown_device_gets_no_answer_and_an_unknown_method_an_error(profile):
    async with open_connected_gateway(profile) as setup, setup.gateway.charger("CP-1") as charger:
        await charger.boot()
        await setup.all_stored()
        setup.thingsboard._min_rpc_timeout = 0.2
        with pytest.raises(RpcTimeout):
            await setup.thingsboard.rpc("CP-99", "Reset", anyway=True, timeout=0.2)
        answer = await setup.thingsboard.rpc("CP-1", "Explode", timeout=5)
        assert answer["error"]["code"] == "UnknownMethod"
        assert "CP-99" not in setup.thingsboard.devices
        await setup.all_stored()
