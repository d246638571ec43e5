"""The publisher on virtual time: a link that comes and goes."""

from __future__ import annotations

from contextlib import asynccontextmanager
from itertools import pairwise

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from gateway.app import AppSettings
from gateway.bus import EventBus
from gateway.domain.events import ChargePointConnected
from gateway.domain.fleet import Fleet
from gateway.journal import Checkpoint
from gateway.northbound.mqtt import Message
from gateway.northbound.outbox import READER
from gateway.northbound.publisher import NorthboundSettings, open_publisher
from gateway.northbound.rate_limits import LIMITS_RESPONSE
from tests.memory_journal import MemoryJournal

from ..conftest import Gateway, open_gateway
from ..fakes import CONNECT, EPOCH, TELEMETRY, FakeThingsBoard, now
from .builders import LOG, FakeCommandRunner, assert_announced_first, firmware, settled, wait_until


async def charge(charger, energy_wh: int = 50, seconds: float = 600) -> int:
    tx = await charger.start(meter_wh=0)
    await trio.sleep(seconds)
    await charger.stop(tx, meter_wh=energy_wh)
    return tx


# --- devices -----------------------------------------------------------------------------------


async def test_each_device_is_announced_before_anything_is_said_of_it_and_with_its_type(gateway):
    async with gateway.charger("CP-1") as charger:
        await charger.boot()
        await charger.status("Available", 1)
        await charge(charger)
        await settled()
    assert_announced_first(gateway.thingsboard)
    kinds = {body["device"]: body["type"] for body in gateway.thingsboard.about(CONNECT)}
    assert kinds == {"CP-1": "EV charger", "CP-1/1": "EV connector", LOG: "EV session log"}
    assert "v1/gateway/disconnect" not in {topic for topic, _ in gateway.thingsboard.published}


async def test_after_a_new_link_every_device_is_announced_again_and_told_as_it_is(gateway):
    async with gateway.charger("CP-1") as here:
        await here.boot()
        await here.status("Preparing")
        async with gateway.charger("CP-2") as other:
            await other.status("Finishing", 2)
        await settled()
        gateway.thingsboard.cut()
        await wait_until(lambda: gateway.thingsboard.links == 2)
        await settled()
        received = list(gateway.thingsboard.by_link[1])
    assert_announced_first(gateway.thingsboard)
    announced = {body["device"] for topic, body in received if topic == CONNECT}
    assert announced == {"CP-1", "CP-1/1", "CP-2", "CP-2/2", LOG}
    shown: dict = {}
    for topic, body in received:
        if topic == TELEMETRY:
            for device, rows in body.items():
                for row in rows:
                    shown.setdefault(device, {}).update(row["values"])
    assert shown["CP-1"]["connected"] is True
    assert shown["CP-2"]["connected"] is False
    assert shown["CP-1/1"]["status"] == "Preparing"
    assert shown["CP-2/2"]["status"] == "Finishing"


async def test_a_silent_device_gives_a_sign_of_life_every_few_minutes(gateway):
    async with gateway.charger("CP-1") as charger:
        await charger.status("Available")
        await charger.status("Unavailable", 0)
        await trio.sleep(3605)
    for device, key, value in (("CP-1", "connected", True), ("CP-1/1", "status", "Available")):
        times = [ts for ts, values in gateway.thingsboard.rows(device) if key in values]
        gaps = [(later - earlier) / 1000 for earlier, later in pairwise(times)]
        assert len(gaps) >= 11
        assert max(gaps) <= 300
        signs = gateway.thingsboard.values(device, key)
        assert set(signs[:-1] if key == "connected" else signs) == {value}
    assert len([body for body in gateway.thingsboard.about(CONNECT) if body["device"] == LOG]) >= 11


async def test_a_connector_is_told_whether_its_charge_point_can_be_reached(gateway):
    """Its status stays what it last was; "Available" alone would promise too much."""

    def reached(device: str) -> object:
        return gateway.thingsboard.latest(device).get("connected")

    async with gateway.charger("CP-1") as charger:
        await charger.status("Available")
        await charger.status("Available", 3)
        await settled()
        assert reached("CP-1/1") is True
        assert reached("CP-1/3") is True
    await settled()
    assert [reached(f"CP-1/{n}") for n in (1, 3)] == [False, False]
    async with gateway.charger("CP-1"):
        await settled()
        assert [reached(f"CP-1/{n}") for n in (1, 3)] == [True, True]


async def test_at_a_start_each_known_charge_point_is_gone_until_it_returns():
    first = Gateway()
    async with open_gateway(journal=first.journal):
        pass
    await first.journal.append(
        ChargePointConnected(charge_point_id="CP-1", received_at=EPOCH, remote_address="x"),
        ChargePointConnected(charge_point_id="CP-2", received_at=EPOCH, remote_address="x"),
    )
    await trio.sleep(60)
    async with open_gateway(journal=first.journal) as gateway:
        await settled()
        assert gateway.thingsboard.latest("CP-1")["connected"] is False
        assert gateway.thingsboard.latest("CP-2")["connected"] is False
        async with gateway.charger("CP-1"):
            await settled()
            assert gateway.thingsboard.latest("CP-1")["connected"] is True
            assert gateway.thingsboard.latest("CP-2")["connected"] is False


# --- outages -----------------------------------------------------------------------------------


async def test_an_hour_without_thingsboard_loses_nothing_and_mixes_nothing_up(gateway):
    async with gateway.charger("CP-1") as charger:
        await charger.status("Available")
        await settled()
        gateway.thingsboard.up = False
        gateway.thingsboard.cut()
        tx = await charger.start(meter_wh=0)
        for minute in range(1, 61):
            await trio.sleep(60)
            await charger.sample(tx, str(minute * 100))
        await trio.sleep(60)
        await charger.stop(tx, meter_wh=6_100)
        assert gateway.thingsboard.values("CP-1/1", "meter_wh") == []
        gateway.thingsboard.up = True
        await wait_until(lambda: gateway.thingsboard.values(LOG, "receipt"))
        await settled()
        await trio.sleep(60)
    rows = gateway.thingsboard.rows("CP-1/1")
    energies = list(dict.fromkeys(v["tx_energy_wh"] for _, v in rows if "tx_energy_wh" in v))
    assert energies == [0, *(n * 100 for n in range(1, 62))]
    history = [ts for ts, values in rows if "tx_energy_wh" in values]
    assert history == sorted(history)
    assert gateway.thingsboard.latest("CP-1/1")["tx_active"] is False
    assert_announced_first(gateway.thingsboard)


async def test_the_place_moves_when_thingsboard_has_acknowledged_and_not_before(gateway):
    journal: MemoryJournal = gateway.journal
    async with gateway.charger("CP-1") as charger:
        await settled()
        before = (await journal.checkpoint(READER)).seq
        gateway.thingsboard.holding = True
        await charger.status("Charging")
        await settled()
        assert gateway.thingsboard.values("CP-1/1", "status") == []  # it waits for its `connect`
        gateway.thingsboard.holding = False
        gateway.thingsboard.release()
        await settled()
        gateway.thingsboard.holding = True
        await charger.status("Finishing")
        await settled()
        assert gateway.thingsboard.values("CP-1/1", "status")[-1] == "Finishing"
        assert (await journal.checkpoint(READER)).seq == len(journal._entries) - 1 > before
        gateway.thingsboard.release()
        await settled()
        assert (await journal.checkpoint(READER)).seq == len(journal._entries)


async def test_what_was_not_acknowledged_is_sent_again_exactly_as_it_was(gateway):
    thingsboard = gateway.thingsboard
    async with gateway.charger("CP-1") as charger:
        await charger.boot()
        await charger.status("Available")
        await settled()
        thingsboard.holding = True
        await charge(charger, seconds=5)
        await settled()
        thingsboard.cut()
        thingsboard.holding = False
        await wait_until(lambda: thingsboard.links == 2)
        await settled()
    unacknowledged, again = (
        [
            (device, row["ts"], row["values"])
            for topic, body in received
            if topic == TELEMETRY
            for device, rows in body.items()
            for row in rows
            if "tx_id" in row["values"] or "receipt" in row["values"]
        ]
        for received in thingsboard.by_link[:2]
    )
    assert unacknowledged
    assert unacknowledged == again[: len(unacknowledged)]


async def test_a_restart_between_publish_and_puback_loses_nothing():
    gateway = Gateway(settings=AppSettings(northbound=NorthboundSettings(grace_s=1)))
    async with open_gateway(journal=gateway.journal, settings=gateway.settings) as first:
        await settled()
        first.thingsboard.holding = True
        await first.running.bus.publish(firmware("Installing", after=1))
        await settled()
        first.stop.set()
    async with open_gateway(journal=gateway.journal) as second:
        await settled()
        assert second.thingsboard.values("CP-1", "firmware_status") == ["Installing"]


async def test_nothing_is_told_before_the_limits_are_known_or_do_not_come():
    """Else a backlog would break them at once, and ThingsBoard close the connection."""
    for answered_after, published_from in ((2, 2), (None, 5)):
        thingsboard = FakeThingsBoard()
        thingsboard.limits = None
        began = trio.current_time()
        async with open_gateway(thingsboard=thingsboard) as gateway:
            await gateway.running.bus.publish(firmware("x"))
            if answered_after:
                await trio.sleep(answered_after)
                assert thingsboard.about(TELEMETRY) == []
                thingsboard._send.send_nowait(Message(LIMITS_RESPONSE, b"{}"))
            await wait_until(lambda thingsboard=thingsboard: thingsboard.about(TELEMETRY))
            assert published_from <= trio.current_time() - began <= published_from + 1


async def test_at_the_stop_the_outbox_is_emptied():
    async with open_gateway() as gateway:
        async with gateway.charger("CP-1") as charger:
            await charger.boot()
            await charge(charger)
        gateway.stop.set()
    assert gateway.thingsboard.latest("CP-1")["connected"] is False
    assert len(gateway.thingsboard.values(LOG, "receipt")) == 1
    assert (await gateway.journal.checkpoint(READER)).seq >= len(gateway.journal._entries) - 1


async def test_the_stop_waits_for_acknowledgements_no_longer_than_the_grace():
    gateway = Gateway(settings=AppSettings(northbound=NorthboundSettings(grace_s=7)))
    async with open_gateway(settings=gateway.settings) as gateway:
        await settled()
        gateway.thingsboard.holding = True
        await gateway.running.bus.publish(firmware("x"))
        await settled()
        began = trio.current_time()
        gateway.stop.set()
    assert 5 < trio.current_time() - began < 6


async def test_with_thingsboard_away_the_stop_does_not_wait():
    thingsboard = FakeThingsBoard()
    thingsboard.up = False
    async with open_gateway(thingsboard=thingsboard) as gateway:
        await gateway.running.bus.publish(firmware("x"))
        await trio.sleep(1_000)  # the pauses are long by now
        began = trio.current_time()
        gateway.stop.set()
    assert trio.current_time() - began < 1
    assert await gateway.journal.checkpoint(READER) == Checkpoint(READER)


async def test_pauses_between_attempts_grow_and_a_link_ends_them():
    thingsboard = FakeThingsBoard()
    thingsboard.up = False
    attempts: list[float] = []
    open_link = thingsboard.open_link

    @asynccontextmanager
    async def watched():
        attempts.append(trio.current_time())
        async with open_link() as link:
            yield link

    thingsboard.open_link = watched
    async with open_gateway(thingsboard=thingsboard) as gateway:
        await trio.sleep(600)
        gaps = [later - earlier for earlier, later in pairwise(attempts)]
        assert gaps[0] <= 1
        assert all(gap <= 60 for gap in gaps)
        assert max(gaps) >= 30
        assert gateway.running.delivery.why == "no route"
        assert gateway.running.delivery.connected is False
        thingsboard.up = True
        await trio.sleep(60 + 26)
        assert (gateway.running.delivery.connected, gateway.running.delivery.why) == (True, "")
        thingsboard.cut()
        await trio.sleep(1.1)  # the first pause again
        assert (thingsboard.links, gateway.running.delivery.connected) == (2, True)


async def test_a_link_that_is_lost_at_once_is_not_tried_every_second():
    """Two gateways with one access token throw each other out as soon as they are in."""
    thingsboard = FakeThingsBoard()
    async with open_gateway(thingsboard=thingsboard):
        for _ in range(600):
            await trio.sleep(1)
            thingsboard.cut()
    assert 5 < thingsboard.links < 40


async def test_whatever_a_link_throws_it_is_one_attempt():
    class Odd(FakeThingsBoard):
        @asynccontextmanager
        async def open_link(self):
            self.tried = getattr(self, "tried", 0) + 1
            if self.tried == 1:
                raise OSError(9, "Bad file descriptor")
            if self.tried == 2:
                raise ExceptionGroup("x", [ExceptionGroup("y", [OSError(9, "Bad"), ValueError()])])
            async with super().open_link() as link:
                yield link

    thingsboard = Odd()
    async with open_gateway(thingsboard=thingsboard) as gateway:
        await trio.sleep(10)
        assert gateway.running.delivery.connected
    assert thingsboard.tried == 3


# --- any misfortune ----------------------------------------------------------------------------

_HAPPENINGS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(0, 3)),
        st.tuples(
            st.sampled_from(["cut", "down", "up", "hold", "release", "refuse", "accept"]),
            st.just(0),
        ),
        st.tuples(st.just("wait"), st.sampled_from([0.0, 0.01, 0.06, 1.0, 25.0])),
    ),
    max_size=40,
)


@settings(max_examples=60)
@given(_HAPPENINGS, st.booleans())
def test_whatever_happens_to_the_link_all_is_told_once_it_stays(happenings, batch_devices):
    """Nothing is lost, nothing overtakes within a device, and only poison becomes a dead letter."""
    trio.run(_live_through, happenings, batch_devices, clock=MockClock(autojump_threshold=0))


async def _live_through(happenings, batch_devices) -> None:
    thingsboard, journal = FakeThingsBoard(), MemoryJournal()
    bus, published, poison = EventBus(journal, Fleet()), {}, set()
    publisher = open_publisher(
        thingsboard.open_link,
        bus,
        FakeCommandRunner().carry_out,
        now,
        NorthboundSettings(batch_devices=batch_devices),
    )
    async with publisher as statistics:
        for number, (what, how) in enumerate(happenings):
            match what:
                case "publish":
                    name, status = f"CP-{how}", f"S-{number}"
                    if "refused" in thingsboard.codes:
                        status += "-refused" if number % 3 == 0 else ""
                    (entry,) = await bus.publish(firmware(status, name, after=number / 1000))
                    if status.endswith("refused"):
                        poison.add(entry.seq)
                    else:
                        published.setdefault(name, []).append(status)
                case "cut" if thingsboard.links:
                    thingsboard.cut()
                case "down":
                    thingsboard.up = False
                    thingsboard.held.clear()
                    thingsboard.cut()
                case "up":
                    thingsboard.up = True
                case "hold":
                    thingsboard.holding = True
                case "release":
                    thingsboard.release()
                case "refuse":
                    thingsboard.codes["refused"] = 0x99
                case "wait":
                    await trio.sleep(how)
        thingsboard.codes["refused"] = 0x99
        thingsboard.up = True
        thingsboard.release()
        await trio.sleep(200)
        assert statistics.connected
        assert statistics.delivered_seq == len(journal._entries)
    for name, statuses in published.items():
        received = thingsboard.values(name, "firmware_status")
        assert set(received) == set(statuses)
        assert list(dict.fromkeys(received)) == statuses  # in order, where first received
        assert received[-1] == statuses[-1]
    assert {letter.seq for letter in await journal.dead_letters(READER)} == poison
    assert_announced_first(thingsboard)
