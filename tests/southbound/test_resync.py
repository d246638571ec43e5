"""Who comes back without a boot is asked how it is, politely."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio

from gateway.southbound.handlers import HandlerSettings
from tests.memory_journal import MemoryJournal

from ..conftest import Gateway, open_gateway
from .connections import connected, serves, southbound_settings
from .operators import Operator
from .raw_websocket import opened, until

STATUS, METER, BOOT = "StatusNotification", "MeterValues", "BootNotification"


@attrs.define(eq=False)
class Returned:
    """A charge point that is connected again, and what it has been asked since.

    says: the status of its answer by requestedMessage; None for no answer at all.
    """

    charger: Any
    says: dict[str, Any] = attrs.field(factory=dict)
    asked: list[tuple[str, int | None]] = attrs.field(factory=list)
    others: list[tuple[str, str]] = attrs.field(factory=list)

    async def run(self) -> None:
        async for unique_id, action, payload in self.charger.calls:
            if action != "TriggerMessage":
                self.others.append((unique_id, action))
                continue
            wanted = payload["requestedMessage"]
            self.asked.append((wanted, payload.get("connectorId")))
            answer = self.says.get(wanted, "Accepted")
            if isinstance(answer, list):
                await self.charger.send([answer[0], unique_id, *answer[1:]])
            elif answer is not None:
                await self.charger.reply(unique_id, status=answer)


@asynccontextmanager
async def returned(gateway: Gateway, **says: Any):
    async with gateway.charger("CP-1") as charger, trio.open_nursery() as nursery:
        found = Returned(charger, says)
        nursery.start_soon(found.run)
        yield found
        nursery.cancel_scope.cancel()


async def known(gateway: Gateway, *connectors: int, charging: int | None = None) -> None:
    """A charge point that was here, with its connectors, and has lost its connection."""
    async with gateway.charger("CP-1") as charger:
        await charger.boot()
        for connector in connectors:
            await charger.ask(
                "StatusNotification", connectorId=connector, status="Available", errorCode="NoError"
            )
        if charging is not None:
            await charger.start(1_000, connector=charging)
        await gateway.settled()


async def test_each_connector_and_what_it_charges_is_asked_for(gateway):
    await known(gateway, 1, 2, charging=2)
    async with returned(gateway) as found:
        await trio.sleep(9)
        assert found.asked == []
        await trio.sleep(2)
        assert found.asked == [(STATUS, 1), (STATUS, 2), (METER, 2)]
        await trio.sleep(3_600)
        assert len(found.asked) == 3


async def test_what_it_then_tells_is_in_thingsboard(gateway):
    """A restart of the gateway, and a charge that ended its car's appetite meanwhile."""
    journal = MemoryJournal()
    async with open_gateway(journal=journal) as before:
        await known(before, 1, charging=1)
    await trio.sleep(3_600)
    async with open_gateway(journal=journal) as after, returned(after) as found:
        await trio.sleep(11)
        assert found.asked == [(STATUS, 1), (METER, 1)]
        await found.charger.status("SuspendedEV")
        await found.charger.sample(1, "4000")
        await after.settled()
        assert after.thingsboard.latest("CP-1/1")["status"] == "SuspendedEV"
        assert after.thingsboard.latest("CP-1/1")["tx_energy_wh"] == 3_000


async def test_who_boots_is_not_asked(gateway):
    await known(gateway, 1, charging=1)
    async with returned(gateway) as found:
        await trio.sleep(5)
        await found.charger.boot()
        await trio.sleep(3_600)
        assert found.asked == []


async def test_a_boot_that_comes_late_ends_the_questions(gateway):
    await known(gateway, 1, 2, 3)
    async with returned(gateway, StatusNotification=None) as found:
        await trio.sleep(11)
        assert found.asked == [(STATUS, 1)]
        await found.charger.boot()
        await trio.sleep(60)
        assert found.asked == [(STATUS, 1)]


async def test_one_that_nobody_knows_is_asked_for_all_and_who_it_is(gateway):
    """HC-28: it may have booted when another central system was there."""
    async with returned(gateway) as found:
        await found.charger.ask("Heartbeat")
        await trio.sleep(11)
        assert found.asked == [(STATUS, None), (BOOT, None)]


async def test_a_message_that_it_does_not_know_is_not_asked_for_again(gateway):
    await known(gateway, 1, 2, charging=1)
    async with returned(gateway, StatusNotification="NotImplemented") as found:
        await trio.sleep(11)
        assert found.asked == [(STATUS, 1), (METER, 1)]
        assert await serves(found.charger)


async def test_one_refused_connector_is_no_reason_not_to_ask_for_the_next(gateway):
    await known(gateway, 1, 2, charging=1)
    async with returned(gateway, StatusNotification="Rejected") as found:
        await trio.sleep(11)
        assert found.asked == [(STATUS, 1), (STATUS, 2), (METER, 1)]


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [4, "NotSupported", "", {}],
        [4, "NotImplemented", "", {}],
        [3, {"status": "Perhaps"}],
        [3, {}],
    ],
    ids=["none", "NotSupported", "NotImplemented", "no status", "nothing"],
)
async def test_who_does_not_know_the_question_is_left_alone_until_it_connects_again(
    gateway, answer
):
    await known(gateway, 1, 2, charging=1)
    for _ in range(2):
        async with returned(gateway, StatusNotification=answer) as found:
            await trio.sleep(605)
            assert found.asked == [(STATUS, 1)]
            assert connected(gateway, "CP-1")
            assert await serves(found.charger)
        await gateway.settled()


async def test_an_operator_waits_for_no_more_than_one_question(gateway, nursery):
    """Also where none of them is answered, and whoever asks first is served first."""
    await known(gateway, *range(1, 9))
    operator = Operator(gateway, nursery)
    async with returned(gateway, StatusNotification=None) as found:
        await trio.sleep(10.5)
        assert found.asked == [(STATUS, 1)]
        before = trio.current_time()
        operator.send("CP-1", "ClearCache")
        await until(lambda: found.others)
        assert trio.current_time() - before < 5
        await found.charger.reply(found.others[0][0], status="Accepted")
        assert await operator.responses() == [{"status": "Accepted"}]
    nursery.cancel_scope.cancel()


async def test_an_operators_call_goes_before_the_next_question(gateway, nursery):
    await known(gateway, *range(1, 9))
    operator = Operator(gateway, nursery)
    async with gateway.charger("CP-1") as charger:
        first, action, _ = await charger.next_call()
        assert action == "TriggerMessage"
        operator.send("CP-1", "ClearCache")
        await gateway.settled()
        await charger.reply(first, status="Accepted")
        assert (await charger.next_call())[1] == "ClearCache"
    nursery.cancel_scope.cancel()


async def test_a_connection_that_is_lost_meanwhile_is_no_fault(gateway, quiet_logs):
    await known(gateway, 1, 2)
    async with opened(gateway, "CP-1") as peer:
        assert (await peer.message())[2] == "TriggerMessage"
    await gateway.settled()
    assert [log for log in quiet_logs if log["log_level"] in ("warning", "error")] == []


# --- Pending -------------------------------------------------------------------------------------

PENDING = southbound_settings(handlers=HandlerSettings(pending_unknown=True))


async def test_who_waits_for_approval_is_not_asked():
    async with open_gateway(settings=PENDING) as gateway, returned(gateway) as found:
        await trio.sleep(605)
        assert found.asked == []


@pytest.mark.parametrize("boots", [True, False])
@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("RemoteStartTransaction", {"idTag": "TAG"}),
        ("RemoteStopTransaction", {"transactionId": 1}),
    ],
)
async def test_nothing_is_started_or_stopped_on_who_waits_for_approval(
    nursery, method, params, boots
):
    """HC-29, OCPP 1.6 §4.2: the order fails with the reason, and other orders go through."""
    async with open_gateway(settings=PENDING) as gateway, returned(gateway) as found:
        if boots:
            answer = await found.charger.boot()
            assert answer["status"] == "Pending"
            assert answer["interval"] > 0
        operator = Operator(gateway, nursery)
        operator.send("CP-1", method, params)
        (answer,) = await operator.responses()
        assert answer["error"]["code"] == "CallError"
        assert answer["error"]["ocpp_code"] == "SecurityError"
        assert "Pending" in answer["error"]["message"]
        assert found.others == []
        operator.send("CP-1", "TriggerMessage", {"requestedMessage": BOOT})
        assert (await operator.responses(2))[1] == {"status": "Accepted"}
        assert found.asked == [(BOOT, None)]
    nursery.cancel_scope.cancel()


async def test_a_connector_is_not_started_on_who_waits_for_approval(nursery):
    """HC-29: also by people's own words for it.  Its transaction messages are kept all the same."""
    async with open_gateway(settings=PENDING) as gateway, returned(gateway) as found:
        tx = await found.charger.start(0)
        await gateway.settled()
        operator = Operator(gateway, nursery)
        operator.send("CP-1/1", "remoteStart", {"idTag": "TAG"})
        operator.send("CP-1/1", "remoteStop")
        await operator.responses(2)
        assert operator.codes == ["CallError"] * 2
        assert found.others == []
        await found.charger.stop(tx, 10)
    nursery.cancel_scope.cancel()
