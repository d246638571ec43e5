"""The gateway as `demo` runs it: the real one, on free ports and a temporary folder."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import trio

from ..config.model import Admin, Config, Ocpp, Pricing, Storage, Thingsboard
from ..config.values import Address
from ..observability.logs import configure
from ..service import serve


async def start_gateway(
    nursery: trio.Nursery,
    *,
    mqtt_port: int,
    access_token: str,
    folder: Path,
    tariffs: dict[str, Any],
) -> int:
    """Start it in `nursery`, where it runs until cancelled; the port for charge points."""
    configure("error")
    prices = folder / "tariffs.json"
    await trio.Path(prices).write_text(json.dumps(tariffs))
    config = Config(
        ocpp=Ocpp(listen=Address("127.0.0.1", 0), grace_s=2.0),
        thingsboard=Thingsboard(port=mqtt_port, access_token=access_token),
        storage=Storage(url=folder / "gateway.db"),
        pricing=Pricing(time_zone="Europe/Amsterdam", tariffs=str(prices)),
        admin=Admin(listen=Address("127.0.0.1", 0)),
    )
    send_ready, ready = trio.open_memory_channel[str](1)
    nursery.start_soon(partial(serve, config, send_ready.send_nowait, wait_stop=trio.sleep_forever))
    _, ocpp, *_ = (await ready.receive()).split()
    return int(ocpp.rpartition(":")[2])
