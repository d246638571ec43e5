"""The gateway as a process, from outside: `run`, real sockets, a charge point that is not ours."""

from __future__ import annotations

import json
import re
import signal
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
import trio

from gateway.simulation.thingsboard import ThingsBoard

from .processes import DAY, TOKEN, Site, charger, eventually, gateway, get

pytestmark = pytest.mark.real_time

CONNECTOR, LOG = "CP-1/1", "ocpp-gateway sessions"
START, MIDDLE, STOP = f"{DAY}T10:00:00Z", f"{DAY}T10:30:00Z", f"{DAY}T11:00:00Z"


@pytest.fixture
def site(tmp_path):
    site = Site(tmp_path)
    site.configure()
    return site


@asynccontextmanager
async def open_thingsboard(site, **more):
    """The ThingsBoard double on the site's MQTT port."""
    thingsboard = ThingsBoard(access_tokens=[TOKEN], **more)
    async with trio.open_nursery() as nursery:
        await nursery.start(thingsboard.serve_tcp, "127.0.0.1", site.mqtt)
        yield thingsboard
        nursery.cancel_scope.cancel()


async def until(thingsboard, predicate, within=20):
    with trio.fail_after(within):
        await thingsboard.wait_for(predicate)


def value(thingsboard, device, key):
    return thingsboard.devices[device].value(key) if device in thingsboard.devices else None


def receipts(thingsboard, device=LOG):
    """Every receipt ThingsBoard was sent, (ts, receipt)."""
    return thingsboard.devices[device].series("receipt") if device in thingsboard.devices else []


async def test_a_whole_charge_ordered_from_thingsboard(site):
    """7.777 kWh at 0.25 and 1.00 for the start are 2.94425 EUR, with VAT 3.5625425."""
    async with (
        open_thingsboard(site) as thingsboard,
        gateway(site) as program,
        charger(site.url, "CP-1", site.folder) as one,
    ):
        assert program.lines == [f"ready ocpp=127.0.0.1:{site.ocpp} admin=127.0.0.1:{site.admin}"]
        await one.boot()
        await one.status("Available", minutes_ago=40)  # it will have charged for the last 30
        await until(thingsboard, lambda _: value(thingsboard, CONNECTOR, "status") == "Available")
        assert value(thingsboard, "CP-1", "connected") is True
        attributes = thingsboard.devices["CP-1"].attributes
        assert attributes["ocpp_version"] == "ocpp1.6"
        assert attributes["charger"]["vendor"] == "Independent"
        assert attributes["charger"]["serial"] == "0042"
        assert attributes["charger"]["firmware"] == "1.2.3"

        began = await thingsboard.rpc(CONNECTOR, "remoteStart", {"idTag": "APP"}, timeout=20)
        assert began["status"] == "Accepted"
        await until(thingsboard, lambda _: value(thingsboard, CONNECTOR, "tx_energy_wh") == 3250)
        await until(thingsboard, lambda _: value(thingsboard, CONNECTOR, "power_w") == 11_040)
        live = {
            key: value(thingsboard, CONNECTOR, key) for key in thingsboard.devices[CONNECTOR].latest
        }
        assert (live["tx_active"], live["tx_id"]) == (True, began["transactionId"])
        assert (live["power_source"], live["meter_wh"]) == ("measured", 103_250)
        assert (live["current_a"], live["current_l1_a"]) == (48, 16)
        assert (live["voltage_v"], live["voltage_l3_v"]) == (230, 230)
        # 3.25 kWh: (0.8125 + 1) * 1.21 = 2.193125
        assert (live["cost_total"], live["cost_total_minor"]) == (2.19, 219)
        assert (live["currency"], live["status"]) == ("EUR", "Charging")

        ended = await thingsboard.rpc(CONNECTOR, "remoteStop", timeout=20)
        assert ended["status"] == "Stopped"
        await until(thingsboard, lambda _: receipts(thingsboard))
        ((ts, receipt),) = receipts(thingsboard)
        assert receipts(thingsboard, CONNECTOR) == [(ts, receipt)]
        assert receipt["receipt_id"] == ended["receipt_id"]
        assert (receipt["energy_wh"], receipt["energy_source"]) == ("7777", "meter_stop")
        assert (receipt["total_excl_vat"], receipt["total_incl_vat"]) == ("2.94", "3.56")
        assert (receipt["id_tag"], receipt["stop_reason"]) == ("APP", "Remote")
        assert (receipt["duration_s"], receipt["flags"]) == (1800, [])
        session = {key: value(thingsboard, LOG, key) for key in thingsboard.devices[LOG].latest}
        assert session["session_energy_kwh"] == 7.777
        assert (session["session_cost"], session["session_cost_minor"]) == (3.56, 356)
        assert (session["session_charge_point"], session["session_connector"]) == ("CP-1", 1)
        assert (session["session_duration_s"], session["session_count"]) == (1800, 1)
        await until(thingsboard, lambda _: value(thingsboard, CONNECTOR, "tx_active") is False)
        await until(thingsboard, lambda _: value(thingsboard, CONNECTOR, "status") == "Available")
        again = await thingsboard.rpc(CONNECTOR, "remoteStop", timeout=20)
        assert again == {"status": "Rejected", "reason": "NoTransaction"}
        assert thingsboard.violations == []


async def test_the_charge_point_answers_what_thingsboard_asks_of_it(site):
    async with (
        open_thingsboard(site) as thingsboard,
        gateway(site),
        charger(site.url, "CP-1", site.folder) as one,
    ):
        await one.boot()
        await one.status("Available")
        await until(thingsboard, lambda _: CONNECTOR in thingsboard.devices)
        keys = {"key": ["HeartbeatInterval", "Nonsense"]}
        answer = await thingsboard.rpc("CP-1", "GetConfiguration", keys)
        assert answer["configurationKey"][0]["value"] == "300"
        assert answer["unknownKey"] == ["Nonsense"]
        assert await thingsboard.rpc("CP-1", "Reset", {"type": "Soft"}) == {"status": "Accepted"}
        wanted = {"requestedMessage": "Heartbeat"}
        assert await thingsboard.rpc("CP-1", "TriggerMessage", wanted) == {"status": "Accepted"}
        await one.wait_event("answer", action="Heartbeat")
        assert await thingsboard.rpc(CONNECTOR, "unlock") == {"status": "Unlocked"}
        assert await thingsboard.rpc(CONNECTOR, "setAvailable", False) == {"status": "Accepted"}
        changed = {"key": "HeartbeatInterval", "value": "60"}
        answer = await thingsboard.rpc("CP-1", "ChangeConfiguration", changed)
        assert answer == {"status": "RebootRequired"}
        refused = await thingsboard.rpc("CP-1", "ClearCache")  # it has no handler for that
        assert refused["error"]["code"] == "CallError"
        assert refused["error"]["ocpp_code"] in ("NotImplemented", "NotSupported")
        invalid = await thingsboard.rpc("CP-1", "Reset", {"type": "Gently"})
        assert invalid["error"]["code"] == "InvalidParams"
        assert (await thingsboard.rpc("CP-1", "Explode"))["error"]["code"] == "UnknownMethod"
        assert thingsboard.violations == []


async def test_sigterm_takes_leave_of_charge_points_and_ends_with_0(site):
    """HC-130."""
    async with (
        open_thingsboard(site) as thingsboard,
        gateway(site) as program,
        charger(site.url, "CP-1", site.folder) as one,
        charger(site.url, "CP-2", site.folder) as two,
    ):
        await until(thingsboard, lambda _: value(thingsboard, "CP-2", "connected") is True)
        await until(thingsboard, lambda _: value(thingsboard, "CP-1", "connected") is True)
        began = trio.current_time()
        assert await program.stop() == 0
        assert trio.current_time() - began < 5
        for each in (one, two):
            assert (await each.wait_event("closed"))["code"] == 1001
        assert len(program.lines) == 1
        assert value(thingsboard, "CP-1", "connected") is False  # published before it went
        assert thingsboard.violations == []


async def test_sigint_and_a_signal_that_comes_with_the_ready_line_end_it_too(site):
    for number in (signal.SIGINT, signal.SIGTERM):
        async with gateway(site) as program:  # ThingsBoard is not there: that must not matter
            assert await program.stop(number) == 0
            assert len(program.lines) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_it_at_once(site, number):
    """HC-130."""
    site.configure(ocpp="").write_text(
        site.config.read_text().replace("grace_s = 5", "grace_s = 60")
    )
    async with open_thingsboard(site) as thingsboard, gateway(site) as program:
        stuck = await trio.open_tcp_stream("127.0.0.1", site.ocpp)
        await stuck.send_all(
            b"GET /ocpp/CP-1 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        async with stuck:  # it never answers the goodbye
            await until(thingsboard, lambda _: value(thingsboard, "CP-1", "connected") is True)
            thingsboard.freeze()  # and ThingsBoard does not read
            program.process.send_signal(number)
            await eventually(lambda: "stopping" in program.complaint())
            assert program.process.returncode is None
            began = trio.current_time()
            assert await program.stop(number) != 0
            assert trio.current_time() - began < 3  # of 60 that it might have taken


async def test_kill_in_mid_transaction_loses_nothing(site):
    """HC-131."""
    async with (
        open_thingsboard(site) as thingsboard,
        charger(site.url, "CP-1", site.folder, connected=False) as one,
    ):
        async with gateway(site) as program:
            await one.wait_event("connected")
            await one.boot()
            transaction_id = await one.start(1_000, START)
            sample = {"value": "3500", "measurand": "Energy.Active.Import.Register", "unit": "Wh"}
            await one.ask(
                "MeterValues",
                connector_id=1,
                transaction_id=transaction_id,
                meter_value=[{"timestamp": MIDDLE, "sampled_value": [sample]}],
            )
            assert await program.stop(signal.SIGKILL) == -9
        assert (await one.wait_event("closed"))["code"] == 1006
        async with gateway(site):
            await one.wait_event("connected")  # and no BootNotification
            await one.stop(transaction_id, 9_000, STOP)
            await until(thingsboard, lambda _: receipts(thingsboard))
            second = await one.start(9_000, f"{DAY}T12:00:00Z")
            assert second > transaction_id
        ((_, receipt),) = receipts(thingsboard)
        assert (receipt["transaction_id"], receipt["energy_wh"]) == (transaction_id, "8000")
        assert (receipt["total_incl_vat"], receipt["flags"]) == ("3.63", [])  # 3 * 1.21
        assert site.rows("select count(*) from receipt") == [(1,)]
        # published once: the row of the energy in the middle is there, no row contradicts another
        energies = dict(thingsboard.devices[CONNECTOR].series("tx_energy_wh"))
        assert 2500 in energies.values()
        assert thingsboard.violations == []


async def test_a_start_whose_answer_was_lost_is_the_same_transaction_again(site):
    """HC-73, HC-132, ten times: kill -9 soon after StartTransaction left; it is sent again."""
    ids, stored = [], []
    async with charger(site.url, "CP-1", site.folder, connected=False) as one:
        for n in range(11):
            async with gateway(site) as program:
                await one.wait_event("connected")
                if n > 0:
                    first = await one.start(0, f"{DAY}T{n - 1:02}:00:00Z")
                    again = await one.start(0, f"{DAY}T{n - 1:02}:00:00Z")
                    assert stored[-1] in ([], [(first,)])
                    assert again == first
                    ids.append(first)
                at = f"{DAY}T{n:02}:00:00Z"
                await one.say("StartTransaction", connector_id=1, id_tag="TAG", meter_start=0,
                              timestamp=at)  # fmt: skip
                with trio.move_on_after(n * 0.002):  # somewhere between receipt and answer
                    await one.wait_event("answer", action="StartTransaction")
                assert await program.stop(signal.SIGKILL) == -9
            await one.wait_event("closed")
            stored.append(site.rows(f"select id from tx where started like '{DAY}T{n:02}%'"))
    assert any(stored)
    assert len(ids) == len(set(ids)) == 10
    assert site.rows("select count(*) from tx where id <= " + str(max(ids))) == [(10,)]


async def test_what_happens_while_thingsboard_is_away_arrives_later(site):
    async with gateway(site) as program, charger(site.url, "CP-1", site.folder) as one:
        async with open_thingsboard(site) as thingsboard:
            await one.boot()
            transaction_id = await one.start(0, START)
            await until(thingsboard, lambda _: value(thingsboard, CONNECTOR, "tx_active") is True)
            thingsboard.disconnect_all()
        status, body = await get(site.admin, "/readyz")
        for minute in range(1, 60):  # nobody listens now
            sample = {"value": str(minute * 100), "unit": "Wh"}
            at = f"{DAY}T10:{minute:02}:00Z"
            await one.ask(
                "MeterValues",
                connector_id=1,
                transaction_id=transaction_id,
                meter_value=[{"timestamp": at, "sampled_value": [sample]}],
            )
        await one.stop(transaction_id, 6_000, STOP)
        status, body = await get(site.admin, "/readyz")
        readiness = json.loads(body)
        assert (status, readiness["ready"]) == (200, True)
        assert readiness["mqtt"].startswith("behind")
        assert readiness["behind_entries"] >= 60
        async with open_thingsboard(site) as later:  # another process of it: it remembers nothing
            await until(later, lambda _: receipts(later), within=40)
            ((_, receipt),) = receipts(later)
            assert receipt["energy_wh"] == "6000"
            energies = [wh for _, wh in later.devices[CONNECTOR].series("tx_energy_wh")]
            assert set(range(100, 6_001, 100)) <= set(energies)
            assert later.violations == []
        assert await program.stop() == 0


async def test_stopped_in_good_order_it_goes_on_where_it_was(site):
    """SIGTERM in mid-charge, ThingsBoard away: the session goes on after the next start."""
    async with charger(site.url, "CP-1", site.folder, connected=False) as one:
        async with gateway(site) as program:
            await one.wait_event("connected")
            transaction_id = await one.start(0, START)
            assert await program.stop() == 0
        async with open_thingsboard(site) as thingsboard, gateway(site):
            await one.wait_event("connected")
            await one.stop(transaction_id, 4_000, STOP)
            await until(thingsboard, lambda _: receipts(thingsboard))
            assert receipts(thingsboard)[0][1]["total_incl_vat"] == "2.42"
            assert thingsboard.violations == []


async def test_logs_are_lines_of_json_on_stderr_and_hold_no_secret(site):
    async with open_thingsboard(site), gateway(site) as program:
        async with charger(site.url, "CP-1", site.folder) as one:
            await one.boot()
        assert await program.stop() == 0
    lines = [line for line in program.complaint().splitlines() if line.startswith("{")]
    assert all({"event", "level", "timestamp"} <= json.loads(line).keys() for line in lines)
    assert TOKEN not in program.complaint()
    assert not re.search(r"Traceback|\"level\": \"error\"", program.complaint())
    ready = datetime.fromisoformat(json.loads(lines[0])["timestamp"])
    assert abs((datetime.now(UTC) - ready).total_seconds()) < 120
