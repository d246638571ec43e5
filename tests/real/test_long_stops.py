"""A StopTransaction with thousands of readings, through real sockets, threads and a real disk."""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio
from websockets.sync.client import ClientConnection, connect

from .processes import Site, eventually, gateway

pytestmark = pytest.mark.real_time

BEGAN = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=30)


@pytest.fixture
def site(tmp_path):
    site = Site(tmp_path)
    site.configure()
    return site


def stamp(seconds: int) -> str:
    return (BEGAN + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def ask(charger: ClientConnection, action: str, payload: Any) -> Any:
    """The payload of the answer, whatever else comes before it."""
    charger.send(json.dumps([2, action, action, payload]))
    while True:
        kind, unique_id, *rest = json.loads(charger.recv(timeout=60))
        if (kind, unique_id) == (3, action):
            return rest[0]


def charge(site: Site, count: int, samples: list[dict[str, str]]) -> int:
    """A whole session, its readings sent with the stop, newest first; returns the stop's size."""
    data = [
        {"timestamp": stamp(10 * n), "sampledValue": [{"value": str(1_000 + n)}, *samples]}
        for n in reversed(range(count))
    ]
    stop = {"meterStop": 1_000 + count, "timestamp": stamp(10 * count), "transactionData": data}
    with connect(f"{site.url}/CP-1", subprotocols=["ocpp1.6"], proxy=None) as charger:
        start = {"connectorId": 1, "idTag": "TAG", "meterStart": 1_000, "timestamp": stamp(0)}
        transaction_id = ask(charger, "StartTransaction", start)["transactionId"]
        ask(charger, "StopTransaction", {"transactionId": transaction_id, **stop})
    return len(json.dumps(stop))


def slowest_heartbeat(site: Site, over: threading.Event) -> float:
    slowest = 0.0
    with connect(f"{site.url}/OTHER", subprotocols=["ocpp1.6"], proxy=None) as charger:
        while not over.wait(0.005):
            began = time.perf_counter()
            ask(charger, "Heartbeat", {})
            slowest = max(slowest, time.perf_counter() - began)
    return slowest


@pytest.mark.parametrize(
    ("count", "samples"),
    [
        (1_000, [{"value": str(n), "measurand": "Voltage", "phase": "L1-N"} for n in range(6)]),
        (8_000, []),
    ],
    ids=["field frame FRM-69", "backwards"],
)
async def test_a_long_stop_is_billed_and_holds_nobody_up(site, count, samples):
    """Eight thousand readings in the order of a stack took four seconds of everybody's time."""
    over = threading.Event()
    slowest: list[float] = []

    async def beat() -> None:
        slowest.append(await trio.to_thread.run_sync(slowest_heartbeat, site, over))

    def receipts() -> list[Any]:
        return [json.loads(body) for (body,) in site.rows("select body from receipt")]

    async with gateway(site), trio.open_nursery() as nursery:
        nursery.start_soon(beat)
        size = await trio.to_thread.run_sync(charge, site, count, samples)
        assert size > 262_144
        await eventually(receipts, within=30)
        over.set()
    (receipt,) = receipts()
    assert receipt["energy_wh"] == str(count)
    assert slowest[0] < 1
