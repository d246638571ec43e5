"""A configuration that is wrong: all its faults at once, each with its file and key."""

from __future__ import annotations

import re

import pytest
import trustme

from gateway.config.load import load

from .conftest import faults_of, warnings_of


def test_every_fault_is_reported_at_once_with_its_file_and_key(write):
    path = write("""
        [ocpp]
        listen = "nowhere"
        heartbeat_interval_s = 0
        lenient = "perhaps"
        max_mesage_bytes = 5
        [thingsbord]
        host = "x"
        [storage]
        keep_days = 1.5
        [pricing]
        time_zone = "Mars/Olympus"
        [charge_points."no/id"]
        [id_tags."TOO-LONG-FOR-AN-ID-TAG"]
        status = "accepted"
    """)
    found = faults_of(path, {"OCPP_GATEWAY_THINGSBOARD_PORT": "0"})
    assert found == [
        f"{path}: thingsbord: no such table; did you mean thingsboard?",
        f'{path}: ocpp.listen: must be "host:port", like "0.0.0.0:9000" or "[::]:9000"',
        f"{path}: ocpp.heartbeat_interval_s: must lie between 1 and 86400",
        f"{path}: ocpp.lenient: must be true or false",
        f"{path}: ocpp.max_mesage_bytes: no such key; did you mean max_message_bytes?",
        "environment: OCPP_GATEWAY_THINGSBOARD_PORT: must lie between 1 and 65535",
        f"{path}: storage.keep_days: must be a whole number",
        f"{path}: pricing.time_zone: 'Mars/Olympus' is no time zone;"
        ' it is written like "Europe/Amsterdam"',
        f"{path}: id_tags.\"TOO-LONG-FOR-AN-ID-TAG\".status: must be one of 'Accepted',"
        " 'Blocked', 'Expired', 'Invalid', 'ConcurrentTx'",
        f'{path}: charge_points."no/id": no charge point id:'
        " 1 to 48 of A-Z a-z 0-9 blank _ . : @ * = -",
        f'{path}: id_tags."TOO-LONG-FOR-AN-ID-TAG": an id tag has 1 to 20 characters',
    ]


@pytest.mark.parametrize("number", ["inf", "-inf", "nan", "true", '"x"', "[]", "1e400", "-1"])
def test_what_is_no_number_is_reported_and_not_raised(number, write):
    found = faults_of(write(f"[ocpp]\nheartbeat_interval_s = {number}\ngrace_s = {number}"))
    assert len(found) == 2
    assert all("must " in line for line in found)


@pytest.mark.parametrize("number", ["", "x", "-1", "1e3", "nan", "٣", "1_000", "0x10", " 5"])
def test_a_variable_that_is_no_number_is_reported_by_its_name(number):
    (found,) = faults_of(None, {"OCPP_GATEWAY_OCPP_HEARTBEAT_INTERVAL_S": number})
    assert found.startswith("environment: OCPP_GATEWAY_OCPP_HEARTBEAT_INTERVAL_S: must ")


@pytest.mark.parametrize("flag", ["True", "yes", "1", "", "TRUE"])
def test_booleans_of_the_environment_are_true_or_false(flag):
    (found,) = faults_of(None, {"OCPP_GATEWAY_OCPP_LENIENT": flag})
    assert found.endswith("must be true or false")


def test_an_unknown_variable_is_a_warning_for_others_may_make_some():
    found = warnings_of(None, {"OCPP_GATEWAY_SERVICE_PORT": "tcp://10.0.0.1:80", "PATH": "/bin"})
    assert any(
        line.startswith("environment: OCPP_GATEWAY_SERVICE_PORT: no such key") for line in found
    )
    found = warnings_of(None, {"OCPP_GATEWAY_OCPP_LISTN": "x:1"})
    assert found[0].endswith("no such key; did you mean OCPP_GATEWAY_OCPP_LISTEN?")


def test_a_table_that_is_none_and_names_that_hold_none_are_reported(write):
    path = write('ocpp = 5\ncharge_points = {"CP-1" = 5}\nid_tags = []')
    assert faults_of(path) == [
        f"{path}: ocpp: must be a table",
        f'{path}: charge_points: must hold tables, like [charge_points."NAME"]',
        f'{path}: id_tags: must hold tables, like [id_tags."NAME"]',
    ]


def test_a_missing_file_a_folder_and_what_is_no_toml_are_reported(tmp_path, write):
    missing = tmp_path / "none.toml"
    assert faults_of(missing) == [f"{missing}: there is no such file"]
    assert faults_of(tmp_path) == [f"{tmp_path}: cannot be read: Is a directory"]
    (found,) = faults_of(write("[ocpp\n"))
    assert re.search(r"gateway\.toml: not TOML: .*line 1", found)
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe[ocpp]")
    assert "cannot be read" in faults_of(binary)[0]
    binary.write_bytes(b"\xef\xbb\xbf[ocpp]\ngrace_s = 1")
    assert load(binary, {})[0].ocpp.grace_s == 1  # as Windows writes it


@pytest.mark.parametrize(
    "url", ["postgresql://user:password@host/db", "postgres://host/db"], ids=["long", "short"]
)
def test_postgres_is_refused_by_its_name(url, write):
    (found,) = faults_of(write(f'[storage]\nurl = "{url}"'))
    assert "storage.url: PostgreSQL comes with a later version" in found
    assert "password" not in found


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///var/lib/gateway.db", "/var/lib/gateway.db"),
        ("sqlite:////var/lib/gateway.db", "/var/lib/gateway.db"),  # as SQLAlchemy has it
        ("sqlite://gateway.db", "gateway.db"),
    ],
)
def test_where_the_store_is(url, path):
    assert str(load(None, {"OCPP_GATEWAY_STORAGE_URL": url})[0].storage.url) == path


@pytest.mark.parametrize("url", ["gateway.db", "sqlite://", "sqlite:///folder/", "mysql://x/y", ""])
def test_what_is_no_store_is_reported(url):
    assert len(faults_of(None, {"OCPP_GATEWAY_STORAGE_URL": url})) == 1


@pytest.mark.parametrize(
    ("text", "host", "port", "shown"),
    [
        ("0.0.0.0:9000", "0.0.0.0", 9000, "0.0.0.0:9000"),
        ("localhost:0", "localhost", 0, "localhost:0"),
        (":9000", "0.0.0.0", 9000, "0.0.0.0:9000"),
        ("[::]:9000", "::", 9000, "[::]:9000"),
        ("[::1]:65535", "::1", 65535, "[::1]:65535"),
        ("[::ffff:10.0.0.1]:1", "::ffff:10.0.0.1", 1, "[::ffff:10.0.0.1]:1"),
        ("gateway.example.org:80", "gateway.example.org", 80, "gateway.example.org:80"),
    ],
)
def test_an_address_is_host_and_port(text, host, port, shown):
    address = load(None, {"OCPP_GATEWAY_OCPP_LISTEN": text})[0].ocpp.listen
    assert (address.host, address.port, str(address)) == (host, port, shown)


@pytest.mark.parametrize(
    "text",
    ["9000", "host", "host:", "::1:9000", "::1", "[::1]", "[::1:9000", "::1]:9000", "h:65536",
     "h:-1", "h:٣", "h:99999999", "ws://h:9000", "h:9000/ocpp", "h :9000", ""],
)  # fmt: skip
def test_what_is_no_address_is_reported(text):
    assert len(faults_of(None, {"OCPP_GATEWAY_OCPP_LISTEN": text})) == 1


def test_keys_that_belong_together_are_reported(write, certificates):
    path = write('[ocpp]\ntls_cert = "cert.pem"')
    assert faults_of(path) == [f"{path}: ocpp.tls_cert: tls_cert and tls_key belong together"]
    path = write('[ocpp]\nlisten_tls = "h:1"\nclient_ca = "ca.pem"')
    assert faults_of(path) == [
        f"{path}: ocpp.listen_tls: needs tls_cert and tls_key",
        f"{path}: ocpp.client_ca: needs tls_cert and tls_key",
    ]


def test_certificates_that_are_none_are_reported(write, certificates):
    write("no certificate", "junk.pem")
    path = write("""
        [ocpp]
        tls_cert = "junk.pem"
        tls_key = "key.pem"
        client_ca = "junk.pem"
        [thingsboard]
        tls = true
        ca_cert = "missing.pem"
    """)
    found = faults_of(path)
    assert [line.split(": ")[1] for line in found] == [
        "thingsboard.ca_cert",
        "ocpp.tls_cert",
        "ocpp.client_ca",
    ]
    assert found[0].endswith(f"there is no file {certificates}/missing.pem")
    assert all("junk.pem" in line for line in found[1:])


def test_a_key_of_another_certificate_is_reported(write, certificates):
    trustme.CA().issue_cert("localhost").private_key_pem.write_to_path(certificates / "other.pem")
    path = write('[ocpp]\ntls_cert = "cert.pem"\ntls_key = "other.pem"')
    (found,) = faults_of(path)
    assert "key values mismatch" in found


def test_the_prototypes_switch_without_a_tag_to_start_with_is_a_warning(write):
    thingsboard = '[thingsboard]\naccess_token = "T"\ncompat = "node-red"\n'
    (found,) = warnings_of(write(thingsboard))
    assert found.split(": ")[1] == "commands.default_id_tag"
    assert warnings_of(write(thingsboard + '[commands]\ndefault_id_tag = "12345678"')) == []


def test_what_works_but_ought_not_to_is_a_warning(write, certificates):
    path = write('[thingsboard]\nca_cert = "ca.pem"\nprotocol = "3.1.1"')
    found = warnings_of(path)
    assert [line.split(": ")[1] for line in found] == [
        "thingsboard.ca_cert",
        "thingsboard.access_token",
        "thingsboard.protocol",
    ]
