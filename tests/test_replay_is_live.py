"""What `replay` says of recorded frames is what the running gateway says of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from gateway.app import AppSettings
from gateway.cli.replay import replay
from gateway.domain.events import TransactionSettled
from gateway.southbound.handlers import HandlerSettings
from gateway.southbound.settings import SouthboundSettings
from gateway.tariffs.file import read_tariffs

from .conftest import open_gateway

DATA = Path(__file__).parent / "data"
FILES = [*sorted((DATA / "billing").glob("*.json")), DATA / "field.json"]
QUIET = AppSettings(
    # Nobody is disconnected for being silent: a recording has no heartbeats.
    southbound=SouthboundSettings(
        ping_interval_s=1e9, boot_wait_s=1e9, handlers=HandlerSettings(heartbeat_interval_s=10**9)
    )
)


def examples() -> Iterator[Any]:
    for path in FILES:
        document = json.loads(path.read_text(), parse_float=Decimal)
        for vector in document["vectors"]:
            yield pytest.param(document["default_policy"], vector, id=vector["id"])


def moment(event: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(event["at"])


@attrs.define
class Player:
    """Plays an example's frames to a charge point's connection, each at its time."""

    events: list[dict[str, Any]]
    ids: dict[Any, int] = attrs.field(factory=dict)  # as recorded -> as given now

    def now(self) -> datetime:
        return moment(self.events[0]) + timedelta(seconds=trio.current_time() - 1)

    async def play(self, charger: Any) -> None:
        for n, event in enumerate(self.events):
            wait = (moment(event) - self.now()).total_seconds()
            await trio.sleep(max(0.0, wait))
            if event["dir"] != "CP>CS" or event["frame"][0] != 2:
                continue
            _, name, action, payload = event["frame"]
            payload = dict(payload) if isinstance(payload, dict) else payload
            if action == "DataTransfer" and "transactionId" in str(payload.get("data")):
                data = json.loads(payload["data"])
                data["transactionId"] = self._given(data["transactionId"])
                payload["data"] = json.dumps(data)
            elif isinstance(payload, dict) and "transactionId" in payload:
                payload["transactionId"] = self._given(payload["transactionId"])
            await charger.send([2, f"{name}-{n}", action, payload])
            _, _, answer = await charger.answer_to(f"{name}-{n}")
            if action == "StartTransaction":
                self.ids[self._recorded(name)] = answer["transactionId"]

    def _recorded(self, name: str) -> Any:
        return next(
            (e["frame"][2]["transactionId"] for e in self.events
             if e["frame"][0] == 3 and e["frame"][1] == name), None
        )  # fmt: skip

    def _given(self, transaction_id: Any) -> Any:
        return self.ids.get(transaction_id, transaction_id)


@pytest.mark.parametrize(("policy", "example"), list(examples()))
async def test_replay_and_the_running_gateway_say_the_same(policy, example):
    tariff = example.get("tariff")
    tariffs = tariff if isinstance(tariff, list) else [] if tariff is None else [tariff]
    document = {"tariffs": tariffs, "policy": policy | (example.get("policy") or {})}
    tariff_book, _ = read_tariffs(document, default_time_zone=example.get("tz"))
    player = Player(sorted(example["events"], key=moment))
    async with open_gateway(tariff_book=tariff_book, settings=QUIET, now=player.now) as gateway:
        await trio.sleep(1)
        async with gateway.charger("CP-1") as charger:
            await player.play(charger)
            await gateway.settled()
        newest = {e.transaction_id: e.receipt for e in gateway.events(TransactionSettled)}
    replayed = replay(example, default_policy=policy)["sessions"]
    closed = [s for s in replayed if player.ids.get(s["transaction_id"]) in newest]
    assert len(closed) == len(newest)
    for session in closed:
        receipt = newest[player.ids[session["transaction_id"]]]
        for name in ("duration_s", "idle_s", "charging_s"):
            assert receipt[name] == int(Decimal(session[name])), name
        for name in ("energy_wh", "total_excl_vat", "total_incl_vat", "stop_reason"):
            assert receipt[name] == session[name], name
        # What comes after a receipt and changes no bill makes no new version of it.
        assert {*receipt["flags"], "late_samples"} >= set(session["flags"]) >= {*receipt["flags"]}
