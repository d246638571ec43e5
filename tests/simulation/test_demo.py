"""`demo` on real OCPP sockets, with a fake gateway and a fake ThingsBoard."""

from __future__ import annotations

import json
from functools import partial
from urllib.parse import urlsplit

import pytest
import trio
from central_system import CentralSystem, time_ms
from trio_websocket import serve_websocket

from gateway.simulation.demo import TARIFFS, DemoOptions, demo
from gateway.simulation.thingsboard import Device, ThingsBoard

pytestmark = pytest.mark.real_time


class FakeThingsBoard(ThingsBoard):
    """Its rows come from `store`; its RPCs go straight to the charge point's central system."""

    def __init__(self):
        super().__init__()
        self.rpcs = []
        self.centrals = {}

    def store(self, name, at, **values):
        device = self.devices.setdefault(name, Device(name, "EV connector"))
        self.save_row(device, time_ms(at), values)
        self.wake_waiters()

    async def rpc(self, device, method, params=None, **_):
        self.rpcs.append((device, method, params))
        central = self.centrals[device.split("/")[0]]
        if method == "remoteStart":
            start = {"connectorId": int(device[-1]), "idTag": params["idTag"]}
            return await central.call("RemoteStartTransaction", start)
        stop = {"transactionId": self.devices[device].value("tx_id")}
        return await central.call("RemoteStopTransaction", stop)


class FakeGateway:
    def __init__(self, thingsboard):
        self.thingsboard = thingsboard
        self.transactions = {}
        self.started_with = {}

    async def start(self, nursery, **how):
        self.started_with = how
        listen = partial(serve_websocket, ssl_context=None)
        return (await nursery.start(listen, self.serve, "127.0.0.1", 0)).port

    async def serve(self, request):
        charger = urlsplit(request.path).path.rpartition("/")[2]
        central = self.thingsboard.centrals[charger] = CentralSystem(
            StatusNotification=partial(self.status, charger),
            StartTransaction=partial(self.start_transaction, charger),
            StopTransaction=self.stop_transaction,
        )
        await central.serve_socket(await request.accept(subprotocol="ocpp1.6"))

    def status(self, charger, payload):
        if payload["connectorId"]:
            name = f"{charger}/{payload['connectorId']}"
            self.thingsboard.store(name, payload["timestamp"], status=payload["status"])
        return {}

    def start_transaction(self, charger, payload):
        tx_id = len(self.transactions) + 1
        name = f"{charger}/{payload['connectorId']}"
        self.transactions[tx_id] = (name, payload)
        tag = {"id_tag": payload["idTag"]}
        self.thingsboard.store(name, payload["timestamp"], tx_active=True, tx_id=tx_id, tx_info=tag)
        return {"transactionId": tx_id, "idTagInfo": {"status": "Accepted"}}

    def stop_transaction(self, payload):
        name, start = self.transactions[payload["transactionId"]]
        receipt = {
            "receipt_id": f"{name}-{payload['transactionId']}",
            "charge_point": name.split("/")[0],
            "connector": int(name[-1]),
            "transaction_id": payload["transactionId"],
            "id_tag": start["idTag"],
            "stop_reason": payload["reason"],
            "energy_wh": str(payload["meterStop"] - start["meterStart"]),
            "duration_s": 61,
            "currency": "EUR",
            "lines": [
                {
                    "dimension": "FLAT",
                    "quantity": "1",
                    "unit": None,
                    "unit_price": "0.50",
                    "vat": "21.0",
                    "cost_excl_vat": "0.5000",
                    "cost_incl_vat": "0.6050",
                }
            ],
            "total_excl_vat": "0.50",
            "total_incl_vat": "0.61",
            "flags": ["idle_estimated"],
        }
        self.thingsboard.store(name, payload["timestamp"], receipt=receipt)
        self.thingsboard.store(name, payload["timestamp"], tx_active=False)
        return {}


@pytest.fixture
def thingsboard():
    return FakeThingsBoard()


def play(thingsboard, gateway=None, **options):
    options = {"seconds": 1.2, "speed": 4_000, "chargers": 2} | options
    gateway = gateway or FakeGateway(thingsboard)
    return demo(DemoOptions(**options), gateway.start, thingsboard=thingsboard)


async def test_every_session_has_its_receipt_and_the_remote_start_is_answered(thingsboard, capsys):
    gateway = FakeGateway(thingsboard)
    with trio.fail_after(8):
        assert await play(thingsboard, gateway) == 0

    told = capsys.readouterr().out
    assert len(gateway.transactions) >= 3
    for name, start in gateway.transactions.values():
        assert f"{name}: Charging" in told
        assert start["idTag"] in told
    assert told.count("FLAT") == len(gateway.transactions)
    assert "0.61" in told
    assert "flags: idle_estimated" in told
    assert thingsboard.rpcs[0] == ("SIM-0001/2", "remoteStart", {"idTag": "DEMO-APP"})
    assert 'RPC remoteStart {"idTag": "DEMO-APP"} was answered {"status": "Accepted"}' in told
    assert "ocpp-gateway run --config" in told
    assert gateway.started_with["tariffs"] is TARIFFS
    assert not gateway.started_with["folder"].exists()


async def test_json_has_a_line_for_every_row_that_thingsboard_is_told(thingsboard, capsys):
    gateway = FakeGateway(thingsboard)
    assert await play(thingsboard, gateway, json_lines=True) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(row.keys() == {"device", "ts", "values"} for row in rows)
    receipts = [row["values"]["receipt"] for row in rows if "receipt" in row["values"]]
    assert len(receipts) == len(gateway.transactions)
    assert {r["id_tag"] for r in receipts} >= {"DEMO-APP"}


async def test_on_a_terminal_there_is_a_live_table(thingsboard, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    assert await play(thingsboard, chargers=1, seconds=1.0) == 0
    told = capsys.readouterr().out
    assert "What ThingsBoard receives" in told
    assert "SIM-0001/2" in told


async def test_what_still_charges_near_the_end_is_stopped_through_thingsboard(thingsboard, capsys):
    assert await play(thingsboard, speed=60, seconds=1.5) == 0
    assert ("SIM-0001/2", "remoteStop", None) in thingsboard.rpcs
    assert "ended by Remote" in capsys.readouterr().out


async def test_a_demo_in_which_nothing_is_told_says_so(thingsboard, capsys):
    async def start(nursery, **_):
        listener = await nursery.start(
            partial(serve_websocket, ssl_context=None), refuse, "127.0.0.1", 0
        )
        return listener.port

    async def refuse(request):
        await request.reject(503)

    assert await demo(DemoOptions(seconds=0.5), start, thingsboard=thingsboard) == 1
    assert "no finished session" in capsys.readouterr().err
