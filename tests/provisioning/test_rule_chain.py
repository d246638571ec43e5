"""The rule chain: what is kept, what reaches chargers, which alarms are raised and cleared."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import attrs
import pytest

from gateway.domain import events, refused_tags
from gateway.northbound import telemetry_keys
from gateway.northbound.telemetry import telemetry_rows
from gateway.provisioning import rule_chain
from gateway.provisioning.rule_chain import (
    AUTHENTICATION_FAILURES,
    FAULTED,
    NEEDS_REVIEW,
    OFFLINE,
    REFUSES,
)

from .rule_engine import ATTRIBUTES, INACTIVITY, RPC, TELEMETRY, Engine, evaluated, returned

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
LOG = "ocpp-gateway sessions"
ABOUT = {"charge_point_id": "CP-1"}


def profile_of(device):
    if device == LOG:
        return telemetry_keys.SESSION_LOG_TYPE
    return telemetry_keys.CONNECTOR_TYPE if "/" in device else telemetry_keys.CHARGE_POINT_TYPE


def publish(engine, *happened):
    """Have the gateway publish events, and ThingsBoard take them."""
    for event in happened:
        for row in telemetry_rows(event, LOG):
            kind = ATTRIBUTES if row.ts is None else TELEMETRY
            engine.take(kind, row.device, profile_of(row.device), dict(row.values), row.ts or 0)
    assert engine.failures == []


def at(minutes):
    return NOON + timedelta(minutes=minutes)


def connected(minutes=0):
    return events.ChargePointConnected(**ABOUT, received_at=at(minutes), remote_address="10.0.0.1")


def gone(minutes=0, reason="broken off"):
    return events.ChargePointDisconnected(**ABOUT, received_at=at(minutes), reason=reason)


def status(word, minutes=0, connector=1, **more):
    return events.ConnectorStatusChanged(
        **ABOUT, received_at=at(minutes), connector_id=connector, status=word, **more
    )


def security(kind, minutes=0, tech_info=None):
    return events.SecurityEventReported(
        **ABOUT, received_at=at(minutes), type=kind, tech_info=tech_info
    )


def receipt(*, review, version=1, number="R1", minutes=0):
    values = {
        "receipt_id": number, "version": version, "needs_review": review,
        "flags": ["needs_review", "stop_inferred"] if review else [],
        "started_at": "2026-03-02T11:00:00Z", "stopped_at": "2026-03-02T12:00:00Z", "id_tag": "TAG",
    }  # fmt: skip
    progress = events.Progress(
        as_of=at(minutes), energy_wh=0, duration_s=60, charging_s=60, idle_s=0
    )
    return events.TransactionSettled(
        **ABOUT, received_at=at(minutes), transaction_id=1, connector_id=1, started_at=NOON,
        progress=progress, receipt=values, version=version,
        published_ms=int(NOON.timestamp() * 1000),
    )  # fmt: skip


@pytest.fixture
def engine():
    return Engine()


def test_everything_that_is_published_is_kept(engine):
    publish(engine, connected(), status("Available"))
    assert [(device, values) for device, _, values in engine.saved] == [
        ("CP-1", {"connected": True}),
        ("CP-1/1", {"status": "Available", "error_code": "NoError", "power_w": 0}),
    ]
    assert [device for device, _ in engine.attributes] == ["CP-1"]


def test_an_order_from_a_dashboard_reaches_the_device(engine):
    """Without a node that carries it, a device of ours could be sent nothing at all."""
    order = {"method": "setCharging", "params": True}
    engine.take(RPC, "CP-1/1", telemetry_keys.CONNECTOR_TYPE, order)
    assert engine.sent == [("CP-1/1", order)]


def test_a_connector_becomes_its_chargers(engine):
    """Dashboards find the one from the other along the relation; ThingsBoard has none by itself."""
    publish(engine, connected(), status("Available"), status("Available", 1, connector=2))
    publish(engine, status("Charging", 2))
    assert engine.relations == {("CP-1", "Contains", "CP-1/1"), ("CP-1", "Contains", "CP-1/2")}


def test_what_cannot_be_saved_is_logged_and_changes_no_alarm(engine):
    engine.take(TELEMETRY, "CP-1", telemetry_keys.CHARGE_POINT_TYPE, {})
    assert engine.failures == ["CP-1: {}"]
    assert engine.history == []


# --- Offline -------------------------------------------------------------------------------------


def test_a_charger_that_leaves_is_offline_until_it_returns(engine):
    publish(engine, connected())
    assert not engine.alarms
    publish(engine, gone(1, "went silent"))
    assert engine.alarms == {("CP-1", OFFLINE): ("MAJOR", {"disconnect_reason": "went silent"})}
    publish(engine, connected(2))
    assert not engine.alarms
    assert engine.history == [("CP-1", OFFLINE, "raised"), ("CP-1", OFFLINE, "cleared")]


def test_a_leave_that_is_delivered_late_raises_nothing(engine):
    """After an outage the newest is delivered first; what is older must not be taken for now."""
    publish(engine, connected(10), gone(5))
    assert engine.history == []


def test_a_return_that_is_delivered_late_clears_nothing(engine):
    publish(engine, gone(10), connected(5))
    assert ("CP-1", OFFLINE) in engine.alarms


def test_silence_of_the_whole_gateway_is_seen_by_thingsboard_itself(engine):
    """Of chargers only: an alarm for each connector too would tell the same twice."""
    publish(engine, connected())
    for device in ("CP-1", "CP-1/1", LOG):
        engine.take(INACTIVITY, device, profile_of(device), {"active": False})
    assert list(engine.alarms) == [("CP-1", OFFLINE)]
    publish(engine, connected(20))
    assert not engine.alarms


# --- Faulted -------------------------------------------------------------------------------------


def test_a_connector_is_faulted_until_it_says_otherwise(engine):
    publish(engine, status("Faulted", error_code="GroundFailure"))
    assert engine.alarms == {("CP-1/1", FAULTED): ("CRITICAL", {"error_code": "GroundFailure"})}
    publish(engine, status("Faulted", 1, error_code="GroundFailure"))
    publish(engine, status("Available", 2))
    assert not engine.alarms
    assert len(engine.history) == 2


def test_the_sign_of_life_of_a_fault_does_not_forget_what_the_fault_is(engine):
    publish(engine, status("Faulted", error_code="GroundFailure"))
    ts = int(at(5).timestamp() * 1000)
    engine.take(TELEMETRY, "CP-1/1", telemetry_keys.CONNECTOR_TYPE, {"status": "Faulted"}, ts)
    assert engine.alarms["CP-1/1", FAULTED] == ("CRITICAL", {"error_code": "GroundFailure"})


def test_a_fault_of_the_charger_itself_is_the_chargers_alarm(engine):
    publish(
        engine,
        status("Faulted", connector=0, error_code="OtherError", vendor_error_code="E7", info="fan"),
    )
    assert engine.alarms == {
        ("CP-1", FAULTED): (
            "CRITICAL",
            {"error_code": "OtherError", "vendor_error_code": "E7", "info": "fan"},
        )
    }


def test_a_fault_that_is_delivered_late_raises_nothing(engine):
    publish(engine, status("Available", 10), status("Faulted", 5))
    assert engine.history == []


# --- Session needs review ------------------------------------------------------------------------


def test_a_doubtful_session_is_an_alarm_of_its_connector(engine):
    publish(engine, receipt(review=True))
    ((where, (severity, details)),) = engine.alarms.items()
    assert where == ("CP-1/1", NEEDS_REVIEW)
    assert severity == "WARNING"
    assert details["receipt_id"] == "R1"
    assert "stop_inferred" in details["flags"]


def test_the_next_session_does_not_hide_it_but_its_correction_settles_it(engine):
    publish(engine, receipt(review=True))
    publish(engine, receipt(review=False, number="R2"))
    assert ("CP-1/1", NEEDS_REVIEW) in engine.alarms
    publish(engine, receipt(review=False, version=2))
    assert not engine.alarms


def test_a_plain_session_is_no_alarm(engine):
    publish(engine, receipt(review=False), receipt(review=False, version=2))
    assert engine.history == []


# --- Charger refuses authorisation ---------------------------------------------------------------


@pytest.mark.parametrize("kind", AUTHENTICATION_FAILURES)
def test_a_charger_that_does_not_trust_us_is_an_alarm(engine, kind):
    publish(engine, security(kind, tech_info="expired"))
    assert engine.alarms == {("CP-1", REFUSES): ("MAJOR", {"type": kind, "tech_info": "expired"})}


def test_drivers_refused_again_and_again_are_an_alarm_until_one_is_accepted(engine):
    publish(engine, security(refused_tags.TAGS_REFUSED))
    assert engine.alarms["CP-1", REFUSES][0] == "WARNING"
    publish(engine, security("SettingSystemTime", 1))
    assert ("CP-1", REFUSES) in engine.alarms
    publish(engine, security(refused_tags.TAG_ACCEPTED, 2))
    assert not engine.alarms


def test_other_security_events_are_none(engine):
    publish(engine, security("FirmwareUpdated"), security(refused_tags.TAG_ACCEPTED))
    assert engine.history == []


# --- the chain itself ----------------------------------------------------------------------------


def test_every_key_that_it_looks_at_is_one_that_the_gateway_publishes():
    published = (
        telemetry_keys.CHARGE_POINT.keys()
        | telemetry_keys.CONNECTOR.keys()
        | telemetry_keys.SESSION_LOG.keys()
    )
    find_by_name = set()
    for node in rule_chain.wanted().nodes.values():
        settings = node["configuration"]
        find_by_name |= {*settings.get("messageNames", ()), *settings.get("latestTsKeyNames", ())}
        for script in ("tbelScript", "alarmDetailsBuildTbel"):
            find_by_name |= set(re.findall(r"\b(?:msg|metadata)\.(\w+)", settings.get(script, "")))
    assert find_by_name >= {"connected", "status", "receipt", "security_event"}
    ours = {"prevAlarmDetails", "deviceName", "charge_point"}  # of the metadata
    assert find_by_name - ours <= published


def test_every_node_is_reached_and_every_failure_is_handled():
    ours = rule_chain.wanted()
    reached, todo = set(), [ours.first]
    while todo:
        name = todo.pop()
        reached.add(name)
        todo += [end for start, _, end in ours.connections if start == name and end not in reached]
    assert reached == ours.nodes.keys()
    quiet = {"Kind of message", "RPC to device", "Log failures"}
    handled = {start for start, relation, _ in ours.connections if relation == "Failure"}
    assert handled == ours.nodes.keys() - quiet


def test_no_two_nodes_are_drawn_upon_each_other():
    places = [
        (node["additionalInfo"]["layoutX"], node["additionalInfo"]["layoutY"])
        for node in rule_chain.wanted().nodes.values()
    ]
    assert len(set(places)) == len(places)


def test_the_engine_of_these_tests_takes_plain_scripts_only():
    assert returned("return msg.a == 'b';") == "msg.a == 'b'"
    assert evaluated("msg.a.b > 1 && metadata.c != null", {"a": {"b": 2}}, {"c": ""}) is True
    assert evaluated("msg.a == false || msg.a == 'x'", {"a": "x"}, {}) is True
    for script in ("msg.a()", "new Date()", "msg['a']", "a"):
        with pytest.raises(ValueError, match="not plain"):
            evaluated(script, {"a": 1}, {})


def test_a_broken_condition_goes_to_the_log():
    engine = Engine()
    node = dict(engine.chain.nodes["Is it offline"])
    broken = "return metadata.no.more == 1;"
    node["configuration"] = {"jsScript": broken, "tbelScript": broken}
    engine.chain = attrs.evolve(engine.chain, nodes={**engine.chain.nodes, "Is it offline": node})
    engine.take(TELEMETRY, "CP-1", telemetry_keys.CHARGE_POINT_TYPE, {"connected": True}, 1)
    assert engine.failures
