"""The hard cases' group D: which message belongs to which transaction, whatever comes.

Retries through a restart and the loss of an answer are in tests/real/test_process.py, values and
registers in test_hard_cases_metering.py.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio

from gateway.app import AppSettings
from gateway.domain.events import (
    MessageOrphaned,
    TransactionOpened,
    TransactionProgressed,
    TransactionSettled,
    TransactionStarted,
)
from gateway.domain.tags import IdTag, TagList
from gateway.southbound.handlers import HandlerSettings
from gateway.southbound.settings import SouthboundSettings

from .conftest import Gateway, open_gateway
from .fakes import EPOCH, stamp
from .southbound.raw_websocket import call, opened

HOUR = 3600


def clock(hours: float) -> str:
    return (EPOCH + timedelta(hours=hours)).isoformat().replace("+00:00", "Z")


def receipts(gateway) -> list[tuple[int, int, str, str]]:
    """(transaction, version, Wh, why it ended), in the order in which they were settled."""
    return [
        (tx["transaction_id"], tx["version"], tx["energy_wh"], tx["stop_reason"])
        for tx in (event.receipt for event in gateway.events(TransactionSettled))
    ]


def newest(gateway) -> dict[str, Any]:
    return gateway.events(TransactionSettled)[-1].receipt


def open_now(gateway) -> list[int]:
    return [tx.transaction_id for tx in gateway.running.ledger.open_transactions()]


async def start(charger, **more: Any) -> int:
    payload = {"connectorId": 1, "idTag": "TAG-001", "meterStart": 777, "timestamp": clock(-2)}
    return (await charger.ask("StartTransaction", **(payload | more)))["transactionId"]


async def stop(charger, tx: int, meter: int, at: str, **more: Any) -> dict[str, Any]:
    return await charger.ask(
        "StopTransaction", transactionId=tx, meterStop=meter, timestamp=at, **more
    )


async def meter(charger, at: str, value: str, connector: int = 1, **more: Any) -> None:
    value_at = {"timestamp": at, "sampledValue": [{"value": value}]}
    await charger.ask("MeterValues", connectorId=connector, meterValue=[value_at], **more)


# --- retries and strangers ------------------------------------------------------------------------


async def test_only_a_later_start_is_a_new_transaction(gateway):
    """HC-71: the answer is lost twice; the next day's start is another one."""
    ids = []
    for _ in range(3):
        async with gateway.charger("CP-1") as charger:
            ids.append(await start(charger))
    async with gateway.charger("CP-1") as charger:
        later = await start(charger, timestamp=clock(-1), meterStart=1_500)
        await stop(charger, later, 2_500, clock(0))
    await gateway.settled()
    assert len(set(ids)) == 1
    assert later > ids[0]
    assert len(gateway.events(TransactionOpened)) == 2
    assert receipts(gateway) == [(ids[0], 1, "0", "Inferred"), (later, 1, "1000", "Local")]
    assert "duplicate_start" in gateway.events(TransactionSettled)[0].receipt["flags"]


async def test_of_three_stops_the_first_is_the_bill(gateway):
    """HC-74: the third says something else, which people are shown."""
    async with gateway.charger("CP-1") as charger:
        tx = await start(charger)
        for register in (1_500, 1_500, 1_700):
            assert await stop(charger, tx, register, clock(-1)) == {}
            await gateway.settled()
    assert receipts(gateway) == [(tx, 1, "723", "Local"), (tx, 2, "723", "Local")]
    assert newest(gateway)["flags"] == ["duplicate_stop"]
    assert newest(gateway)["total_incl_vat"] == "0.22"


@pytest.mark.parametrize("tx", [4711, -1, 2**63 - 1])
async def test_messages_of_no_transaction_are_kept_with_all_that_they_say(gateway, tx):
    """HC-75, HC-76: also while one is open on the connector, which they say nothing about."""
    async with gateway.charger("CP-1") as charger:
        mine = await start(charger)
        await meter(charger, clock(-1.5), "99000", transactionId=tx)
        data = [{"timestamp": clock(-1), "sampledValue": [{"value": "12", "context": "Other"}]}]
        answer = await stop(charger, tx, 900, clock(-1), idTag="TAG-001", transactionData=data)
        assert answer == {"idTagInfo": {"status": "Accepted"}}
        await gateway.settled()
        assert open_now(gateway) == [mine]
        await stop(charger, mine, 1_777, clock(0))
    await gateway.settled()
    orphans = gateway.events(MessageOrphaned)
    assert [orphan.message for orphan in orphans] == ["MeterValues", "StopTransaction"]
    assert all(piece in orphans[1].content for piece in ("TAG-001", '"900"', '"context": "Other"'))
    assert receipts(gateway) == [(mine, 1, "1000", "Local")]


async def test_our_ids_are_positive_and_never_given_twice(gateway):
    """HC-77, errata 3.54: nor after a restart, when all that had them has ended."""
    ids = []
    for n in range(3):
        async with open_gateway(journal=gateway.journal) as again, again.charger("CP-1") as charger:
            ids.append(await start(charger, timestamp=clock(-2 + n / 10)))
            await stop(charger, ids[-1], 1_000, clock(-1))
            await again.settled()
    assert ids == sorted(set(ids))
    assert all(0 < tx < 2**31 for tx in ids)


async def test_what_happened_offline_has_its_own_times(gateway):
    """HC-78: three days ago; when we heard of it is kept beside."""
    async with gateway.charger("CP-1") as charger:
        tx = await start(charger, timestamp=clock(-72))
        await stop(charger, tx, 1_777, clock(-71))
    await gateway.settled()
    assert (newest(gateway)["started_at"], newest(gateway)["duration_s"]) == (clock(-72), HOUR)
    (started,) = gateway.events(TransactionStarted)
    assert started.received_at >= EPOCH


async def test_a_queue_of_an_outage_leaves_the_connector_as_it_is_now(gateway):
    """HC-79: as a MicroOcpp charge point does after 20 s offline, then 500 messages in order."""
    async with gateway.charger("CP-1") as charger:
        for status in ("Preparing", "Charging", "Finishing"):
            await charger.status(status)
            await charger.ask("Heartbeat")
        tx = await start(charger)
        for n in range(4):
            await meter(charger, clock(-1.9 + n / 10), str(877 + n * 100), transactionId=tx)
        await stop(charger, tx, 1_777, clock(-1))
        await gateway.settled()
    assert receipts(gateway) == [(tx, 1, "1000", "Local")]
    assert (newest(gateway)["duration_s"], newest(gateway)["idle_s"]) == (HOUR, 0)
    thingsboard = gateway.thingsboard.latest("CP-1/1")
    assert (thingsboard["status"], thingsboard["tx_active"]) == ("Finishing", False)
    async with opened(gateway, "CP-2") as peer:
        begun = {"connectorId": 1, "idTag": "T", "meterStart": 0, "timestamp": clock(-9)}
        await peer.send(call("StartTransaction", "start", **begun))
        tx = (await peer.message())[2]["transactionId"]
        queue = [
            {"timestamp": clock(-9 + n / 60), "sampledValue": [{"value": str(n * 10)}]}
            for n in range(500)
        ]
        for n, value in enumerate(queue):
            payload = {"connectorId": 1, "transactionId": tx, "meterValue": [value]}
            await peer.send(call("MeterValues", str(n), **payload))
        assert [(await peer.message())[1] for _ in queue] == [str(n) for n in range(500)]
    await gateway.settled()
    assert gateway.events(TransactionProgressed)[-1].progress.energy_wh == 4990


# --- one tag, one transaction ---------------------------------------------------------------------

FAMILY = TagList({"mum": IdTag(parent="HOME"), "dad": IdTag(parent="HOME"), "home": IdTag()})


async def test_a_tag_may_charge_in_two_places_unless_that_is_refused(gateway):
    """HC-81."""
    async with gateway.charger("CP-1") as one, gateway.charger("CP-2") as two:
        for charger, connector in ((one, 1), (one, 2), (two, 1)):
            payload = {"meterStart": 0, "timestamp": clock(-1), "idTag": "T"}
            answer = await charger.ask("StartTransaction", connectorId=connector, **payload)
            assert answer["idTagInfo"] == {"status": "Accepted"}


async def test_where_a_tag_may_charge_once_its_second_start_is_answered_so():
    """HC-81: in StartTransaction only; it is real all the same, and whoever has the same parent is
    the same.  A retry is not concurrent with itself, nor with what was refused."""
    rules = HandlerSettings(tags=FAMILY, concurrent_tx=False)
    settings = AppSettings(southbound=SouthboundSettings(handlers=rules))
    async with (
        open_gateway(settings=settings) as gateway,
        gateway.charger("CP-1") as one,
        gateway.charger("CP-2") as two,
    ):

        async def begin(charger, tag, connector=1):
            payload = {"connectorId": connector, "idTag": tag, "meterStart": 0}
            answer = await charger.ask("StartTransaction", timestamp=clock(-1), **payload)
            return answer["transactionId"], answer["idTagInfo"]["status"]

        first, status = await begin(one, "MUM")
        assert status == "Accepted"
        refused = [await begin(two, tag, n) for n, tag in enumerate(("mum", "dad", "home"), 1)]
        assert [status for _, status in refused] == ["ConcurrentTx"] * 3
        assert min(tx for tx, _ in refused) > first
        assert await begin(one, "MUM") == (first, "Accepted")
        assert (await two.ask("Authorize", idTag="dad"))["idTagInfo"]["status"] == "Accepted"
        assert (await begin(two, "uncle", 4))[1] == "Accepted"
        await gateway.settled()
        await stop(one, first, 10, clock(0))
        await gateway.settled()
        assert (await begin(one, "dad"))[1] == "Accepted"


async def test_a_refused_start_is_billed_for_what_flowed_until_its_stop():
    """HC-80."""
    tags = TagList({"lost": IdTag(status="Blocked")})
    settings = AppSettings(southbound=SouthboundSettings(handlers=HandlerSettings(tags=tags)))
    async with open_gateway(settings=settings) as gateway, gateway.charger("CP-1") as charger:
        tx = await start(charger, idTag="LOST")
        await stop(charger, tx, 797, clock(-1.9), reason="DeAuthorized")
        await gateway.settled()
        assert receipts(gateway) == [(tx, 1, "20", "DeAuthorized")]


@pytest.mark.parametrize(
    ("more", "answer"),
    [
        ({}, {}),
        ({"idTag": "TAG-001"}, {"idTagInfo": {"status": "Accepted"}}),
        ({"idTag": "mum"}, {"idTagInfo": {"status": "Accepted", "parentIdTag": "HOME"}}),
        ({"idTag": "thief"}, {"idTagInfo": {"status": "Invalid"}}),
    ],
)
async def test_whoever_stops_it_the_transaction_has_stopped(more, answer):
    """HC-98: idTagInfo answers an idTag, and only that."""
    tags = TagList({**FAMILY.tags, "tag-001": IdTag()}, accept_unknown=False)
    settings = AppSettings(southbound=SouthboundSettings(handlers=HandlerSettings(tags=tags)))
    async with open_gateway(settings=settings) as gateway, gateway.charger("CP-1") as charger:
        tx = await start(charger)
        assert await stop(charger, tx, 1_777, clock(-1), **more) == answer
        await gateway.settled()
        assert receipts(gateway) == [(tx, 1, "1000", "Local")]


async def test_a_reservation_that_nobody_knows_is_no_hindrance(gateway):
    """HC-99: the charge point keeps them; what it says is kept with the start."""
    async with gateway.charger("CP-1") as charger:
        await start(charger, reservationId=99)
    (started,) = gateway.events(TransactionStarted)
    assert started.reservation_id == 99


# --- what else happens meanwhile ------------------------------------------------------------------


async def test_a_start_over_an_open_one_closes_that_only_for_the_time_being(gateway):
    """HC-92: SAP's charge points send Start(new) 2 ms before Stop(old)."""
    async with gateway.charger("CP-1") as charger:
        old = await start(charger)
        await meter(charger, clock(-1.5), "1277", transactionId=old)
        new = await start(charger, timestamp=clock(-1), meterStart=1_777, idTag="OTHER")
        await trio.sleep(0.002)
        await stop(charger, old, 1_777, clock(-1))
        await gateway.settled()
        assert open_now(gateway) == [new]
        assert receipts(gateway) == [(old, 1, "500", "Inferred"), (old, 2, "1000", "Local")]
        assert newest(gateway)["flags"] == ["stop_late"]
        third = await start(charger, timestamp=clock(-0.5), meterStart=1_900)
        await gateway.settled()
        assert open_now(gateway) == [third]
    assert receipts(gateway)[-1] == (new, 1, "0", "Inferred")


async def test_a_boot_ends_no_transaction(gateway):
    """HC-93: the power was away for a moment; it goes on, or its stop comes now."""
    async with gateway.charger("CP-1") as charger:
        await charger.boot()
        tx = await start(charger)
    async with gateway.charger("CP-1") as charger:
        await charger.boot()
        await gateway.settled()
        assert open_now(gateway) == [tx]
        await meter(charger, clock(-1), "1277", transactionId=tx)
        await charger.boot()
        await stop(charger, tx, 1_377, clock(-0.9), reason="PowerLoss")
        await gateway.settled()
    assert receipts(gateway) == [(tx, 1, "600", "PowerLoss")]
    assert newest(gateway)["flags"] == []


async def test_two_connectors_stop_in_reverse(gateway):
    """HC-96."""
    async with gateway.charger("CP-1") as charger:
        first = await start(charger)
        second = await start(charger, connectorId=2, meterStart=0)
        await meter(charger, clock(-1.5), "1000", transactionId=first)
        await meter(charger, clock(-1.5), "300", connector=2, transactionId=second)
        await stop(charger, second, 500, clock(-1))
        await stop(charger, first, 1_777, clock(0))
    await gateway.settled()
    assert receipts(gateway) == [(second, 1, "500", "Local"), (first, 1, "1000", "Local")]


@pytest.mark.parametrize(("connector", "flagged"), [(0, True), (-1, True), (99, False)])
async def test_a_connector_that_is_none_is_flagged(gateway, connector, flagged):
    """HC-97: of 99 nobody knows that the charge point has fewer."""
    async with gateway.charger("CP-1") as charger:
        tx = await start(charger, connectorId=connector)
        await stop(charger, tx, 1_777, clock(-1))
    await gateway.settled()
    assert receipts(gateway) == [(tx, 1, "1000", "Local")]
    assert ("connector_invalid" in newest(gateway)["flags"]) is flagged
    assert newest(gateway)["needs_review"] is flagged


@pytest.mark.parametrize("status", ["Available", "Faulted", "Unavailable"])
async def test_no_status_closes_a_transaction(gateway, status):
    """HC-102: what is never ended is, in the end, by time (test_given_up)."""
    async with gateway.charger("CP-1") as charger:
        tx = await start(charger)
        await charger.status(status)
        await gateway.settled()
        assert open_now(gateway) == [tx]
        assert gateway.events(TransactionSettled) == []


HARDWARE = {"chargePointVendor": "V", "chargePointModel": "M", "chargePointSerialNumber": "1"}


@pytest.mark.parametrize(
    ("now", "replaced"),
    [
        ({}, False),
        ({"firmwareVersion": "2"}, False),
        (
            {"chargePointModel": "M plus"},
            False,
        ),  # new firmware spells it so
        ({"chargePointSerialNumber": "2"}, True),
        ({"chargePointSerialNumber": "2", "chargeBoxSerialNumber": "3"}, True),
        ({"chargePointSerialNumber": " ab-0017c "}, True),
        ({"chargePointSerialNumber": "unknown"}, False),
        ({"chargePointSerialNumber": "N/A", "chargePointVendor": "v."}, False),
        ({"chargePointSerialNumber": "0", "chargePointModel": "null"}, False),
        ({"chargePointSerialNumber": "0001 "}, False),
        ({"chargePointSerialNumber": "", "chargeBoxSerialNumber": "1"}, False),
        ({"chargePointSerialNumber": "", "chargeBoxSerialNumber": "77"}, False),
        ({"chargePointSerialNumber": "77", "chargeBoxSerialNumber": "1"}, False),
        ({"chargePointSerialNumber": "", "chargePointVendor": "W"}, True),
    ],
)
async def test_a_charge_point_that_was_replaced_will_not_stop_what_it_had_begun(
    gateway, now, replaced
):
    """HC-103: its sessions end at their last reading, for the time being."""
    async with gateway.charger("CP-1") as charger, gateway.charger("CP-2") as other:
        await charger.ask("BootNotification", **HARDWARE)
        tx, theirs = await start(charger), await start(other)
        await meter(charger, clock(-1), "1277", transactionId=tx)
        async with open_gateway(journal=gateway.journal) as again, again.charger("CP-1") as anew:
            await anew.ask("BootNotification", **(HARDWARE | now))
            await again.settled()
            assert open_now(again) == ([theirs] if replaced else [tx, theirs])
    assert receipts(gateway) == ([(tx, 1, "500", "Replaced")] if replaced else [])
    if replaced:
        assert newest(gateway)["flags"] == ["charger_replaced", "needs_review", "stop_inferred"]


@pytest.mark.parametrize(
    "boots",
    [
        [{"chargePointSerialNumber": "AB-17c"}, {"chargePointSerialNumber": "ab17C"}],
        [
            {"chargePointSerialNumber": "A1", "chargeBoxSerialNumber": "B2"},
            {"chargePointSerialNumber": "b2"},
            {"chargeBoxSerialNumber": "B2"},
        ],
        [{"chargeBoxSerialNumber": "S1"}, {}, {"chargePointSerialNumber": "s-1"}],
        [{}, {"chargePointSerialNumber": "S1"}, {"chargePointVendor": "unknown"}],
        [{"chargePointModel": "m" * 300, "chargePointVendor": "v" * 256}] * 2,  # too long to show
    ],
)
async def test_a_charge_point_that_spells_itself_differently_is_the_same(gateway, boots):
    async with gateway.charger("CP-1") as charger:
        for number, boot in enumerate(boots):
            await charger.ask(
                "BootNotification", **HARDWARE | {"chargePointSerialNumber": ""} | boot
            )
            if not number:
                tx = await start(charger)
        await gateway.settled()
        assert open_now(gateway) == [tx]


async def test_other_hardware_is_seen_though_the_last_boot_said_nothing(gateway):
    async with gateway.charger("CP-1") as charger:
        await charger.ask("BootNotification", **HARDWARE)
        await start(charger)
        await charger.ask("BootNotification", **HARDWARE | {"chargePointSerialNumber": "UNKNOWN"})
        await gateway.settled()
        assert receipts(gateway) == []
        await charger.ask("BootNotification", **HARDWARE | {"chargePointSerialNumber": "2"})
        await gateway.settled()
        assert len(receipts(gateway)) == 1
        later = await start(charger, meterStart=999)
        await charger.ask("BootNotification", **HARDWARE | {"chargePointSerialNumber": "2"})
        await gateway.settled()
        assert open_now(gateway) == [later]


@pytest.mark.parametrize("restart", [False, True])
async def test_the_true_stop_of_one_that_seemed_to_be_replaced_is_reviewed_too(restart):
    first = Gateway()
    async with open_gateway(journal=first.journal) as gateway, gateway.charger("CP-1") as charger:
        await charger.ask("BootNotification", **HARDWARE)
        tx = await start(charger)
        await charger.ask("BootNotification", **HARDWARE | {"chargePointSerialNumber": "2"})
        await gateway.settled()
        if not restart:
            await stop(charger, tx, 1_777, clock(-1))
            await gateway.settled()
    if restart:
        async with open_gateway(journal=first.journal) as again, again.charger("CP-1") as charger:
            await stop(charger, tx, 1_777, clock(-1))
            await again.settled()
    assert receipts(first)[-1] == (tx, 2, "1000", "Local")
    assert {"charger_replaced", "needs_review", "stop_late"} <= set(newest(first)["flags"])
    assert newest(first)["needs_review"] is True


async def test_a_start_that_the_charge_point_knows_nothing_of_is_shown_and_given_up():
    """HC-104: our answer was lost, and it does not ask again, but it is there."""
    settings = AppSettings(stale_session=timedelta(hours=2))
    async with open_gateway(settings=settings) as gateway, gateway.charger("CP-1") as charger:
        tx = await start(charger, timestamp=stamp())
        await charger.status("Available")
        await gateway.settled()
        assert gateway.thingsboard.latest("CP-1/1")["tx_flags"] == ["unconfirmed"]
        confirmed = await start(charger, timestamp=stamp(), connectorId=2)
        await meter(charger, stamp(), "877", connector=2, transactionId=confirmed)
        for _ in range(3 * 12):
            await charger.ask("Heartbeat")
            await trio.sleep(300)
        await gateway.settled()
        assert open_now(gateway) == [confirmed]
        assert receipts(gateway) == [(tx, 1, "0", "Stale")]
        await stop(charger, tx, 1_777, stamp())
        await gateway.settled()
        assert receipts(gateway)[-1] == (tx, 2, "1000", "Local")


async def test_a_clock_that_was_never_set_costs_no_half_century(gateway):
    """HC-94: 1970 at the start, today at the stop."""
    async with gateway.charger("CP-1") as charger:
        tx = await start(charger, timestamp="1970-01-01T00:00:07Z")
        await trio.sleep(HOUR)
        await stop(charger, tx, 1_777, stamp())
        ahead = await start(charger, timestamp="2099-01-01T00:00:00Z", meterStart=1_777)
        await trio.sleep(HOUR)
        await stop(charger, ahead, 2_777, stamp())
    await gateway.settled()
    for event in gateway.events(TransactionSettled):
        assert abs(event.receipt["duration_s"] - HOUR) < 2
        assert {"timestamp_from_receipt", "needs_review"} <= set(event.receipt["flags"])


TIMES = {
    "2025-12-31T23:00:00Z": True,
    "2025-12-31T23:00:00.123456789Z": True,
    "2026-01-01T01:00:00+02:00": True,
    "2025-12-31T23:00:00": True,  # no zone is UTC
    "2025-12-31t23:00:00z": True,
    "2025-12-31 23:00:00Z": True,
    "20251231T230000Z": True,
    "2025-12-31T23:00:60Z": False,
    "2025-12-31T24:00:00Z": False,
    "": False,
    "yesterday": False,
}


@pytest.mark.parametrize(("text", "read"), TIMES.items())
async def test_a_time_is_read_or_is_that_of_receipt(gateway, text, read):
    """HC-95: read where there is one way to read it; no StartTransaction is refused for it."""
    async with gateway.charger("CP-1") as charger:
        await start(charger, timestamp=text)
    (opened,) = gateway.events(TransactionOpened)
    begun = datetime(2025, 12, 31, 23, tzinfo=UTC)
    assert abs(opened.started_at - (begun if read else EPOCH)) < timedelta(seconds=1)
    assert ("timestamp_from_receipt" in opened.progress.flags) is not read
