"""What Prometheus scrapes, and the alerts that rest on it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import trio
import yaml
from prometheus_client.parser import text_string_to_metric_families

from gateway.admin.metrics import render
from gateway.domain.histogram import Histogram
from gateway.journal.group_commit import open_sqlite
from gateway.northbound.outbox import READER
from gateway.observability.frame_tap import FrameTap
from gateway.southbound.connection import ChargePointConnection
from gateway.southbound.errors import ChargePointGone
from gateway.southbound.handlers import HandlerSettings
from gateway.southbound.statistics import REFUSAL_REASONS, ConnectionStatistics
from gateway.southbound.websocket import SocketClosed

from ..conftest import Gateway, open_gateway
from ..fakes import Refused, now
from ..northbound.builders import firmware
from ..southbound.connections import southbound_settings
from ..southbound.raw_websocket import dial
from .test_server import value_of

ALERTS = Path(__file__).parents[2] / "deploy" / "alerts.yml"


def metrics_of(gateway):
    return list(text_string_to_metric_families(render(gateway.running).decode()))


def value(gateway, name, **labels):
    return value_of(metrics_of(gateway), name, **labels)


# --- charge points -----------------------------------------------------------------------------


async def test_requests_are_counted_by_action_and_outcome_and_timed(gateway):
    async with gateway.charger("CP-1") as charger:
        await charger.boot()
        await charger.ask("Heartbeat")
        assert value(gateway, "requests_total", action="Heartbeat", outcome="answered") == 1
        assert value(gateway, "request_seconds_count") == 2


async def test_a_request_that_is_refused_is_counted_as_that():
    settings = southbound_settings(handlers=HandlerSettings(pending_unknown=True))
    async with open_gateway(settings=settings) as gateway, gateway.charger("CP-1") as charger:
        with pytest.raises(Refused):
            await charger.ask("Heartbeat")
        assert value(gateway, "requests_total", action="Heartbeat", outcome="refused") == 1


async def test_calls_are_counted_by_how_they_end_and_answers_timed(gateway):
    async with gateway.charger("CP-1") as charger:
        await charger.boot()
        await gateway.settled()

        async def call(answer):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(gateway.thingsboard.rpc, "CP-1", "ClearCache", {})
                unique_id, _, _ = await charger.next_call()
                await trio.sleep(2)
                await answer(unique_id)

        async def nothing(_):
            await trio.sleep(40)

        for answer in (
            lambda unique_id: charger.reply(unique_id, status="Accepted"),
            lambda unique_id: charger.reply(unique_id, status="Maybe"),
            lambda unique_id: charger.send([4, unique_id, "GenericError", "", {}]),
            nothing,
        ):
            await call(answer)
        for outcome in ("answered", "invalid", "refused", "timeout"):
            assert value(gateway, "calls_total", action="ClearCache", outcome=outcome) == 1
        assert value(gateway, "call_seconds_count") == 3
        assert value(gateway, "call_seconds_bucket", le="1.0") == 0
        assert value(gateway, "call_seconds_bucket", le="2.5") == 3


async def test_a_call_to_one_that_leaves_is_counted_as_gone(gateway):
    async with trio.open_nursery() as nursery, gateway.charger("CP-1") as charger:
        await charger.boot()
        await gateway.settled()
        nursery.start_soon(gateway.thingsboard.rpc, "CP-1", "ClearCache", {})
        await charger.next_call()
    assert value(gateway, "calls_total", action="ClearCache", outcome="gone") == 1


async def test_a_call_that_cannot_be_sent_is_counted_as_gone():
    class Closed:
        async def send(self, _):
            await trio.lowlevel.checkpoint()
            raise SocketClosed(1006, None)

    tally = ConnectionStatistics()
    async with trio.open_nursery() as tasks:
        session = ChargePointConnection(
            "CP-1", Closed(), print, print, print, tasks,
            statistics=tally, frame_tap=FrameTap(now), lenient=True, call_timeout_s=30,
        )  # fmt: skip
        with pytest.raises(ChargePointGone):
            await session.call("ClearCache", {})
    assert tally.calls == {("ClearCache", "gone"): 1}


async def test_refused_handshakes_are_counted_by_reason():
    async with open_gateway(settings=southbound_settings(require_subprotocol=True)) as gateway:
        for target in ("/", "/ocpp/CP-1", "/ocpp/CP-2"):
            async with dial(gateway) as peer:
                await peer.upgrade(target)
        assert value(gateway, "handshakes_refused_total", reason="no_id") == 1
        assert value(gateway, "handshakes_refused_total", reason="subprotocol") == 2
        assert value(gateway, "handshakes_refused_total", reason="password") == 0
        assert set(gateway.running.connections.refused_handshakes) == set(REFUSAL_REASONS)


# --- the books ---------------------------------------------------------------------------------


async def test_receipts_are_counted_and_those_in_doubt_apart(gateway):
    async with gateway.charger("CP-1") as charger:
        await charger.boot()
        tx = await charger.start(0)
        await gateway.settled()
        assert value(gateway, "open_transactions") == 1
        await trio.sleep(3_600)
        await charger.stop(tx, 10_000)
        tx = await charger.start(10_000)
        await trio.sleep(3_600)
        await charger.stop(tx, 5_000)  # a register that fell
        await charger.stop(77, 0)
        await gateway.settled()
    assert value(gateway, "open_transactions") == 0
    assert value(gateway, "receipts_total", needs_review="false") == 1
    assert value(gateway, "receipts_total", needs_review="true") == 1
    assert value(gateway, "orphan_messages_total") == 1
    assert value(gateway, "events_not_accounted_total") == 0


async def test_what_a_bug_keeps_out_of_the_books_is_counted(gateway, monkeypatch):
    def post(_):
        raise ZeroDivisionError

    monkeypatch.setattr(gateway.running.ledger, "post", post, raising=False)
    async with gateway.charger("CP-1") as charger:
        await charger.start(0)
        await gateway.settled()
    assert value(gateway, "events_not_accounted_total") >= 1


# --- the journal and the north -----------------------------------------------------------------


@pytest.mark.real_time
async def test_commits_are_reported_by_size_and_time(tmp_path):
    async with open_sqlite(tmp_path / "gateway.db") as journal:
        await journal.append(*[firmware(str(number)) for number in range(30)])
        statistics = journal.statistics()
    assert statistics.entries == statistics.commit_entries.total == 30
    assert sum(statistics.commit_entries.counts) == 1
    assert statistics.commit_entries.cumulative()[4:6] == [("20", 0), ("50", 1)]
    assert sum(statistics.commit_seconds.counts) == statistics.commits
    assert 0 < statistics.commit_seconds.total < 10


async def test_the_lag_is_the_age_of_the_oldest_that_is_not_acknowledged(gateway):
    await gateway.running.bus.publish(firmware("Downloading"))
    await gateway.settled()
    assert value(gateway, "north_lag_entries") == value(gateway, "north_lag_seconds") == 0
    gateway.thingsboard.up = False
    gateway.thingsboard.cut()
    await trio.sleep(100)
    assert value(gateway, "north_lag_seconds") == 0  # there is nothing to tell
    began = trio.current_time()
    await gateway.running.bus.publish(firmware("Downloaded"))
    await trio.sleep(1_000)
    await gateway.running.bus.publish(firmware("Installing"))
    await trio.sleep(500)
    age = trio.current_time() - began
    assert value(gateway, "north_lag_entries") == 2
    assert value(gateway, "north_lag_seconds") == pytest.approx(age, abs=1)
    gateway.thingsboard.up = True
    await trio.sleep(120)
    assert value(gateway, "north_lag_entries") == value(gateway, "north_lag_seconds") == 0


async def test_a_lag_outlives_a_restart():
    gateway = Gateway()
    gateway.thingsboard.up = False
    place = await gateway.journal.checkpoint(READER)
    await gateway.journal.append(firmware("Downloading"))
    assert place.seq == 0
    await trio.sleep(3_600)
    async with open_gateway(journal=gateway.journal, thingsboard=gateway.thingsboard) as again:
        assert value(again, "north_lag_seconds") == pytest.approx(3_600, abs=1)
        await again.running.bus.publish(firmware("Downloaded", after=3_600))
        await trio.sleep(10)
        assert value(again, "north_lag_seconds") == pytest.approx(3_610, abs=1)
        gateway.thingsboard.up = True


async def test_publishes_are_counted_by_result(gateway):
    gateway.thingsboard.codes["Bad"] = 0x99
    await gateway.running.bus.publish(firmware("Good"))
    await gateway.settled()
    await gateway.running.bus.publish(firmware("Bad"))
    await gateway.settled()
    assert value(gateway, "north_publishes_total", result="delivered") >= 1
    assert value(gateway, "north_publishes_total", result="refused") >= 3
    assert value(gateway, "north_set_aside_total") == 1


async def test_the_process_is_measured_under_the_same_prefix(gateway):
    assert value(gateway, "process_resident_memory_bytes") > 1e6
    assert value(gateway, "process_open_fds") > 0
    assert value(gateway, "process_cpu_seconds_total") > 0


def test_a_value_on_a_bound_is_in_its_bucket():
    histogram = Histogram((1, 2))
    for value in (0, 1, 1.5, 2, 3):
        histogram.add(value)
    assert histogram.cumulative() == [("1", 2), ("2", 4), ("+Inf", 5)]
    assert histogram.total == 7.5


# --- the alerts --------------------------------------------------------------------------------


def rules():
    document = yaml.safe_load(ALERTS.read_text("utf-8"))
    return [rule for group in document["groups"] for rule in group["rules"]]


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
async def test_an_alert_says_what_is_wrong_and_what_to_do_about_a_metric_that_exists(gateway, rule):
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert set(rule["annotations"]) == {"summary", "action"}
    assert all(len(text) > 20 for text in rule["annotations"].values())
    assert re.fullmatch(r"\d+[smh]", rule.get("for", "1m"))
    expression = rule["expr"]
    assert all(
        expression.count(left) == expression.count(right) for left, right in ("()", "{}", "[]")
    )
    families = metrics_of(gateway)
    samples = {sample.name for family in families for sample in family.samples}
    empty = {family.name + "_total" for family in families if not family.samples}
    named = set(re.findall(r"ocpp_gateway_\w+", f"{expression} {rule['annotations']['action']}"))
    assert named <= samples | empty
    assert named or expression.startswith("up{")
    for label, alternatives in re.findall(r'(\w+)=~"([\w|]+)"', expression):
        if label == "reason":
            assert set(alternatives.split("|")) <= set(REFUSAL_REASONS)


def test_no_two_alerts_have_the_same_name():
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names)) > 5
