"""The configuration: one file and the environment in, a Config out."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import attrs
import pytest

from gateway.app import AppSettings
from gateway.config.load import _SECTIONS, load
from gateway.config.model import Config
from gateway.config.values import Address

from .conftest import HASH, faults_of, warnings_of


def test_the_gateways_own_devices_are_no_charge_points(write):
    path = write('[thingsboard]\ngateway_name = "site"\n')
    assert AppSettings.of(load(path, {})[0]).southbound.own_devices == {"site", "site sessions"}


# --- defaults and keys -----------------------------------------------------------------------


def test_without_a_file_the_promised_defaults_hold():
    config, _ = load(None, {})
    assert config == Config()
    ocpp, thingsboard = config.ocpp, config.thingsboard
    assert str(ocpp.listen) == "0.0.0.0:9000"
    assert ocpp.heartbeat_interval_s == 300
    assert (ocpp.ping_interval_s, ocpp.call_timeout_s) == (30, 30)
    assert (ocpp.grace_s, ocpp.handshake_timeout_s, ocpp.stale_session_h) == (10, 10, 72)
    assert ocpp.max_message_bytes == 262144
    assert (ocpp.max_messages_per_s, ocpp.max_handshakes_per_address) == (200, 2_000)
    assert (ocpp.unknown_charge_points, ocpp.unknown_id_tags) == ("accept", "accept")
    assert ocpp.concurrent_tx == "accept"
    assert (ocpp.require_subprotocol, ocpp.lenient, ocpp.listen_tls) == (False, True, None)
    assert (thingsboard.host, thingsboard.port, thingsboard.protocol) == ("127.0.0.1", 1883, "5")
    assert (thingsboard.gateway_name, thingsboard.compat, thingsboard.batch_devices) == (
        "ocpp-gateway",
        "",
        False,
    )
    assert str(config.storage.url) == "/var/lib/ocpp-gateway/gateway.db"
    assert config.storage.keep_days == 400
    assert config.commands.remote_start_timeout_s == 60
    assert config.pricing.tariffs is None
    assert not config.pricing.driver_display
    assert str(config.admin.listen) == "127.0.0.1:9100"


GIVEN = {  # section.key -> (as TOML has it, as the environment has it, what is meant)
    "ocpp.listen": ('"127.0.0.1:1"', "127.0.0.1:1", Address("127.0.0.1", 1)),
    "ocpp.listen_tls": ('"h:2"', "h:2", Address("h", 2)),
    "ocpp.heartbeat_interval_s": ("60", "60", 60),
    "ocpp.ping_interval_s": ("7.5", "7.5", 7.5),
    "ocpp.call_timeout_s": ("8", "8", 8.0),
    "ocpp.handshake_timeout_s": ("9", "9", 9.0),
    "ocpp.grace_s": ("0", "0", 0.0),
    "ocpp.stale_session_h": ("24", "24", 24.0),
    "ocpp.max_message_bytes": ("65536", "65536", 65536),
    "ocpp.max_messages_per_s": ("50", "50", 50.0),
    "ocpp.max_handshakes_per_address": ("20", "20", 20),
    "ocpp.unknown_charge_points": ('"pending"', "pending", "pending"),
    "ocpp.unknown_id_tags": ('"reject"', "reject", "reject"),
    "ocpp.concurrent_tx": ('"reject"', "reject", "reject"),
    "ocpp.require_subprotocol": ("true", "true", True),
    "ocpp.lenient": ("false", "false", False),
    "ocpp.tls_cert": ('"{folder}/cert.pem"', "{folder}/cert.pem", "{folder}/cert.pem"),
    "ocpp.tls_key": ('"{folder}/key.pem"', "{folder}/key.pem", "{folder}/key.pem"),
    "ocpp.client_ca": ('"{folder}/ca.pem"', "{folder}/ca.pem", "{folder}/ca.pem"),
    "thingsboard.host": ('"tb.example"', "tb.example", "tb.example"),
    "thingsboard.port": ("8883", "8883", 8883),
    "thingsboard.access_token": ('"TOKEN"', "TOKEN", "TOKEN"),
    "thingsboard.tls": ("true", "true", True),
    "thingsboard.ca_cert": ('"{folder}/ca.pem"', "{folder}/ca.pem", "{folder}/ca.pem"),
    "thingsboard.protocol": ('"3.1.1"', "3.1.1", "3.1.1"),
    "thingsboard.gateway_name": ('"site"', "site", "site"),
    "thingsboard.batch_devices": ("true", "true", True),
    "thingsboard.compat": ('"node-red"', "node-red", "node-red"),
    "storage.url": ('"sqlite:///srv/g.db"', "sqlite:///srv/g.db", Path("/srv/g.db")),
    "storage.keep_days": ("30", "30", 30),
    "pricing.time_zone": ('"Europe/Paris"', "Europe/Paris", "Europe/Paris"),
    "pricing.tariffs": ('"{folder}/key.pem"', "{folder}/key.pem", "{folder}/key.pem"),
    "pricing.driver_display": ("true", "true", True),
    "commands.default_id_tag": ('"TAG"', "TAG", "TAG"),
    "commands.remote_start_timeout_s": ("5", "5", 5.0),
    "admin.listen": ('"127.0.0.1:0"', "127.0.0.1:0", Address("127.0.0.1", 0)),
}  # fmt: skip
TOGETHER = ("ocpp.listen_tls", "ocpp.tls_cert", "ocpp.tls_key", "ocpp.client_ca")


def test_the_list_of_keys_above_is_whole():
    known = {
        f"{section}.{field.name}"
        for section, kind in _SECTIONS.items()
        for field in attrs.fields(kind)
    }
    assert set(GIVEN) == known


def variable(key):
    return "OCPP_GATEWAY_" + key.replace(".", "_").upper()


def all_keys(folder, column):
    return {
        key: given[column].replace("{folder}", str(folder))
        if isinstance(given[column], str)
        else given[column]
        for key, given in GIVEN.items()
    }


def as_toml(values):
    sections = {key.partition(".")[0] for key in values}
    return "\n".join(
        f"[{section}]\n"
        + "\n".join(
            f"{key.partition('.')[2]} = {value}"
            for key, value in values.items()
            if key.startswith(section + ".")
        )
        for section in sorted(sections)
    )


def value_of(config, key):
    section, _, name = key.partition(".")
    return getattr(getattr(config, section), name)


def test_every_key_is_read_from_the_file(write, certificates):
    config, _ = load(write(as_toml(all_keys(certificates, 0))), {})
    assert {key: value_of(config, key) for key in GIVEN} == all_keys(certificates, 2)


def test_every_key_is_read_from_the_environment(certificates):
    environment = {variable(key): text for key, text in all_keys(certificates, 1).items()}
    config, found = load(None, environment)
    assert {key: value_of(config, key) for key in GIVEN} == all_keys(certificates, 2)
    assert not [fault for fault in found if fault.where.startswith("environment")]


@pytest.mark.parametrize("key", sorted(GIVEN.keys() - set(TOGETHER)))
def test_the_environment_beats_the_file(key, write, certificates):
    others = {  # a good value that is not the default either
        "ocpp.listen": '"127.0.0.9:9"', "ocpp.unknown_charge_points": '"reject"',
        "ocpp.unknown_id_tags": '"accept"', "ocpp.concurrent_tx": '"accept"',
        "thingsboard.protocol": '"5"',
        "thingsboard.compat": '""', "storage.url": '"sqlite:///other.db"',
        "pricing.time_zone": '"Europe/Rome"', "admin.listen": '"127.0.0.9:9"',
        "ocpp.max_message_bytes": "4096", "thingsboard.ca_cert": '"cert.pem"',
        "pricing.tariffs": '"cert.pem"',
    }  # fmt: skip
    _, given, meant = (all_keys(certificates, column)[key] for column in range(3))
    plain = {bool: "true" if given == "false" else "false", int: "77", float: "77", str: '"other"'}
    toml = others.get(key) or plain[type(meant)]
    path = write(as_toml({key: toml}))
    assert value_of(load(path, {})[0], key) != meant
    assert value_of(load(path, {variable(key): given})[0], key) == meant


def test_charge_points_and_id_tags_are_known_by_name(write):
    path = write(f"""
        [charge_points."CP 1"]
        password_hash = "{HASH}"
        security_profile = 2
        time_zone = "Europe/Paris"
        max_power_kw = 22
        energy_scale = 0.1
        [id_tags."04A1B2C3"]
        status = "Blocked"
        expires = 2030-01-01T00:00:00
        parent = "FLEET"
    """)
    config, _ = load(path, {})
    charger, tag = config.charge_points["CP 1"], config.id_tags["04A1B2C3"]
    assert (charger.password_hash, charger.security_profile) == (HASH, 2)
    assert (charger.time_zone, charger.max_power_kw) == ("Europe/Paris", 22)
    assert str(charger.energy_scale) == "0.1"  # as it is written, and not a float's digits
    assert tag.expires == datetime(2030, 1, 1, tzinfo=UTC)
    assert (tag.status, tag.parent) == ("Blocked", "FLEET")


# --- secrets ---------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["thingsboard.access_token", "storage.url"])
def test_a_secret_may_lie_in_a_file_that_file_or_environment_name(key, write):
    secret = "sqlite:///run/SECRET"
    file = write(secret + "\n", "secret.txt")
    meant = Path("/run/SECRET") if key == "storage.url" else secret
    by_file = write(as_toml({key + "_file": f'"{file}"'}))
    by_name = write(as_toml({key + "_file": '"secret.txt"'}), "near.toml")
    assert value_of(load(by_file, {})[0], key) == meant
    assert value_of(load(by_name, {})[0], key) == meant
    assert value_of(load(None, {variable(key) + "_FILE": str(file)})[0], key) == meant


def test_a_secret_in_the_environment_beats_a_secrets_file_that_the_file_names(write):
    path = write('[thingsboard]\naccess_token_file = "/nowhere"')
    environment = {"OCPP_GATEWAY_THINGSBOARD_ACCESS_TOKEN": "ENV"}
    assert load(path, environment)[0].thingsboard.access_token == "ENV"
    write("FROM FILE", "token")
    path = write('[thingsboard]\naccess_token = "PLAIN"')
    environment = {"OCPP_GATEWAY_THINGSBOARD_ACCESS_TOKEN_FILE": str(path.parent / "token")}
    assert load(path, environment)[0].thingsboard.access_token == "FROM FILE"


def test_a_secret_that_is_given_twice_is_a_fault(write):
    token = write("B", "token")
    path = write('[thingsboard]\naccess_token = "A"\naccess_token_file = "token"')
    assert faults_of(path) == [
        f"{path}: thingsboard.access_token_file: access_token is given already"
    ]
    environment = {
        "OCPP_GATEWAY_THINGSBOARD_ACCESS_TOKEN": "A",
        "OCPP_GATEWAY_THINGSBOARD_ACCESS_TOKEN_FILE": str(token),
    }
    assert len(faults_of(None, environment)) == 1


def test_a_password_hash_may_lie_in_a_file(write):
    write(HASH + "\n", "hash")
    path = write('[charge_points."CP-1"]\npassword_hash_file = "hash"')
    assert load(path, {})[0].charge_points["CP-1"].password_hash == HASH


def test_what_is_no_secret_has_no_file_of_its_own(write):
    path = write('[ocpp]\nlisten_file = "x"')
    assert faults_of(path)[0].startswith(f"{path}: ocpp.listen_file: no such key")
    (found,) = [
        line
        for line in warnings_of(None, {"OCPP_GATEWAY_OCPP_LISTEN_FILE": "x"})
        if "_FILE" in line
    ]
    assert found.startswith("environment: OCPP_GATEWAY_OCPP_LISTEN_FILE: no such key; did you mean")


def test_no_secret_is_ever_shown(write):
    path = write(f"""
        [thingsboard]
        access_token = "S3CRET"
        [storage]
        url = "sqlite:///S3CRET.db"
        [charge_points."CP-1"]
        password_hash = "{HASH}S3CRET"
    """)
    assert "S3CRET" not in repr(load(path, {})[0])
    wrong = write("""
        [thingsboard]
        access_token = ["S3CRET"]
        [storage]
        url = "mysql://user:S3CRET@host/db"
        [charge_points."CP-1"]
        password_hash = "S3CRET"
    """)
    found = faults_of(wrong)
    assert len(found) == 3
    assert "S3CRET" not in "".join(found)
