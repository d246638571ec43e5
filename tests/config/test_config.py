"""The configuration: one file and the environment in, a Config or all faults at once out."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import attrs
import pytest
import trustme

from gateway.app import AppSettings
from gateway.cli.main import main
from gateway.config.load import _SECTIONS, _TABLES, ConfigError, load
from gateway.config.model import Config
from gateway.config.values import Address

DEPLOY = Path(__file__).parents[2] / "deploy"
HASH = "$argon2id$v=19$m=65536,t=3,p=4$c2FsdHNhbHQ$aGFzaGhhc2g"


@pytest.fixture
def write(tmp_path):
    def written(text, name="gateway.toml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return written


@pytest.fixture
def certificates(tmp_path):
    """PEM files: an authority, and a server's chain and key."""
    authority = trustme.CA()
    server = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    server.private_key_pem.write_to_path(tmp_path / "key.pem")
    for blob in server.cert_chain_pems:
        blob.write_to_path(tmp_path / "cert.pem", append=True)
    return tmp_path


def faults_of(path, environment=None):
    """Every fault as the line that is shown."""
    with pytest.raises(ConfigError) as caught:
        load(path, environment or {})
    return [f"{fault.where}: {fault.what}" for fault in caught.value.faults if fault.fatal]


def warnings_of(path, environment=None):
    return [f"{fault.where}: {fault.what}" for fault in load(path, environment or {})[1]]


def test_the_gateways_own_devices_are_no_charge_points(write):
    path = write('[thingsboard]\ngateway_name = "site"\n')
    assert AppSettings.of(load(path, {})[0]).southbound.own_devices == {"site", "site sessions"}


# --- defaults and keys -----------------------------------------------------------------------


def test_without_a_file_the_promised_defaults_hold():
    config, _ = load(None, {})
    assert config == Config()
    ocpp, board = config.ocpp, config.thingsboard
    assert str(ocpp.listen) == "0.0.0.0:9000"
    assert ocpp.heartbeat_interval_s == 300
    assert (ocpp.ping_interval_s, ocpp.call_timeout_s) == (30, 30)
    assert (ocpp.grace_s, ocpp.handshake_timeout_s, ocpp.stale_session_h) == (10, 10, 72)
    assert ocpp.max_message_bytes == 262144
    assert (ocpp.max_messages_per_s, ocpp.max_handshakes_per_address) == (200, 2_000)
    assert (ocpp.unknown_charge_points, ocpp.unknown_id_tags) == ("accept", "accept")
    assert ocpp.concurrent_tx == "accept"
    assert (ocpp.require_subprotocol, ocpp.lenient, ocpp.listen_tls) == (False, True, None)
    assert (board.host, board.port, board.protocol) == ("127.0.0.1", 1883, "5")
    assert (board.gateway_name, board.compat, board.batch_devices) == ("ocpp-gateway", "", False)
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
    (told,) = [
        line
        for line in warnings_of(None, {"OCPP_GATEWAY_OCPP_LISTEN_FILE": "x"})
        if "_FILE" in line
    ]
    assert told.startswith("environment: OCPP_GATEWAY_OCPP_LISTEN_FILE: no such key; did you mean")


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
    told = faults_of(wrong)
    assert len(told) == 3
    assert "S3CRET" not in "".join(told)


# --- faults ----------------------------------------------------------------------------------


def test_every_fault_is_told_at_once_with_its_file_and_key(write):
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
    told = faults_of(path, {"OCPP_GATEWAY_THINGSBOARD_PORT": "0"})
    assert told == [
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
def test_what_is_no_number_is_told_and_not_raised(number, write):
    told = faults_of(write(f"[ocpp]\nheartbeat_interval_s = {number}\ngrace_s = {number}"))
    assert len(told) == 2
    assert all("must " in line for line in told)


@pytest.mark.parametrize("number", ["", "x", "-1", "1e3", "nan", "٣", "1_000", "0x10", " 5"])
def test_a_variable_that_is_no_number_is_told_by_its_name(number):
    (told,) = faults_of(None, {"OCPP_GATEWAY_OCPP_HEARTBEAT_INTERVAL_S": number})
    assert told.startswith("environment: OCPP_GATEWAY_OCPP_HEARTBEAT_INTERVAL_S: must ")


@pytest.mark.parametrize("flag", ["True", "yes", "1", "", "TRUE"])
def test_booleans_of_the_environment_are_true_or_false(flag):
    (told,) = faults_of(None, {"OCPP_GATEWAY_OCPP_LENIENT": flag})
    assert told.endswith("must be true or false")


def test_an_unknown_variable_is_a_warning_for_others_may_make_some():
    told = warnings_of(None, {"OCPP_GATEWAY_SERVICE_PORT": "tcp://10.0.0.1:80", "PATH": "/bin"})
    assert any(
        line.startswith("environment: OCPP_GATEWAY_SERVICE_PORT: no such key") for line in told
    )
    told = warnings_of(None, {"OCPP_GATEWAY_OCPP_LISTN": "x:1"})
    assert told[0].endswith("no such key; did you mean OCPP_GATEWAY_OCPP_LISTEN?")


def test_a_table_that_is_none_and_names_that_hold_none_are_told(write):
    path = write('ocpp = 5\ncharge_points = {"CP-1" = 5}\nid_tags = []')
    assert faults_of(path) == [
        f"{path}: ocpp: must be a table",
        f'{path}: charge_points: must hold tables, like [charge_points."NAME"]',
        f'{path}: id_tags: must hold tables, like [id_tags."NAME"]',
    ]


def test_a_missing_file_a_folder_and_what_is_no_toml_are_told(tmp_path, write):
    missing = tmp_path / "none.toml"
    assert faults_of(missing) == [f"{missing}: there is no such file"]
    assert faults_of(tmp_path) == [f"{tmp_path}: cannot be read: Is a directory"]
    (told,) = faults_of(write("[ocpp\n"))
    assert re.search(r"gateway\.toml: not TOML: .*line 1", told)
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe[ocpp]")
    assert "cannot be read" in faults_of(binary)[0]
    binary.write_bytes(b"\xef\xbb\xbf[ocpp]\ngrace_s = 1")
    assert load(binary, {})[0].ocpp.grace_s == 1  # as Windows writes it


@pytest.mark.parametrize(
    "url", ["postgresql://user:password@host/db", "postgres://host/db"], ids=["long", "short"]
)
def test_postgres_is_refused_by_its_name(url, write):
    (told,) = faults_of(write(f'[storage]\nurl = "{url}"'))
    assert "storage.url: PostgreSQL comes with a later version" in told
    assert "password" not in told


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
def test_what_is_no_store_is_told(url):
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
def test_what_is_no_address_is_told(text):
    assert len(faults_of(None, {"OCPP_GATEWAY_OCPP_LISTEN": text})) == 1


def test_keys_that_belong_together_are_told(write, certificates):
    path = write('[ocpp]\ntls_cert = "cert.pem"')
    assert faults_of(path) == [f"{path}: ocpp.tls_cert: tls_cert and tls_key belong together"]
    path = write('[ocpp]\nlisten_tls = "h:1"\nclient_ca = "ca.pem"')
    assert faults_of(path) == [
        f"{path}: ocpp.listen_tls: needs tls_cert and tls_key",
        f"{path}: ocpp.client_ca: needs tls_cert and tls_key",
    ]


def test_certificates_that_are_none_are_told(write, certificates):
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
    told = faults_of(path)
    assert [line.split(": ")[1] for line in told] == [
        "thingsboard.ca_cert",
        "ocpp.tls_cert",
        "ocpp.client_ca",
    ]
    assert told[0].endswith(f"there is no file {certificates}/missing.pem")
    assert all("junk.pem" in line for line in told[1:])


def test_a_key_of_another_certificate_is_told(write, certificates):
    trustme.CA().issue_cert("localhost").private_key_pem.write_to_path(certificates / "other.pem")
    path = write('[ocpp]\ntls_cert = "cert.pem"\ntls_key = "other.pem"')
    (told,) = faults_of(path)
    assert "key values mismatch" in told


def test_the_prototypes_switch_without_a_tag_to_start_with_is_a_warning(write):
    board = '[thingsboard]\naccess_token = "T"\ncompat = "node-red"\n'
    (told,) = warnings_of(write(board))
    assert told.split(": ")[1] == "commands.default_id_tag"
    assert warnings_of(write(board + '[commands]\ndefault_id_tag = "12345678"')) == []


def test_what_works_but_ought_not_to_is_a_warning(write, certificates):
    path = write('[thingsboard]\nca_cert = "ca.pem"\nprotocol = "3.1.1"')
    told = warnings_of(path)
    assert [line.split(": ")[1] for line in told] == [
        "thingsboard.ca_cert",
        "thingsboard.access_token",
        "thingsboard.protocol",
    ]


# --- tariffs, and the examples that we give -------------------------------------------------


def test_faults_of_tariffs_are_told_with_their_place_beside_those_of_the_file(write, capsys):
    tariffs = {
        "tariffs": [
            {
                "id": "A",
                "currency": "EUR",
                "elements": [{"price_components": [{"type": "ENRGY", "price": 1, "step_size": 1}]}],
            }
        ],
        "assign": [{"default": True, "tariffs": ["B"]}],
        "policy": {"idle_grace_s": "soon"},
    }
    file = write(json.dumps(tariffs), "tariffs.json")
    path = write("""
        [ocpp]
        heartbeat_interval_s = 0
        [pricing]
        time_zone = "Europe/Amsterdam"
        tariffs = "tariffs.json"
    """)
    assert main(["check", "--config", str(path)]) == 2
    told = capsys.readouterr().err.splitlines()
    for place in (
        f"{path}: ocpp.heartbeat_interval_s: ",
        f"{file}: tariffs[0].elements[0].price_components[0].type: ",
        f"{file}: assign[0].tariffs[0]: ",
        f"{file}: policy.idle_grace_s: ",
    ):
        assert [line for line in told if line.startswith(place)], (place, told)


@pytest.mark.parametrize("text", ["{", "[1,", "\x00", '{"tariffs": NaN}'])
def test_tariffs_that_are_no_json_are_told(text, write, capsys):
    file = write(text, "tariffs.json")
    path = write('[pricing]\ntariffs = "tariffs.json"')
    assert main(["check", "--config", str(path)]) == 2
    assert f"{file}: not readable as JSON" in capsys.readouterr().err


def test_tariffs_need_a_time_zone(write, capsys):
    tariff = {"id": "A", "currency": "EUR", "elements": [
        {"price_components": [{"type": "ENERGY", "price": 1, "step_size": 1}]}]}  # fmt: skip
    write(json.dumps({"tariffs": [tariff]}), "tariffs.json")
    path = write('[pricing]\ntariffs = "tariffs.json"')
    assert main(["check", "--config", str(path)]) == 2
    assert "time_zone: is missing" in capsys.readouterr().err


def test_check_warns_of_charge_points_that_are_believed_any_power(write, capsys):
    """An AC one delivers 22 kW at most; whether it is AC nothing else says."""
    price = {"type": "ENERGY", "price": 1, "step_size": 1}
    tariff = {"id": "A", "currency": "EUR", "elements": [{"price_components": [price]}]}
    document = {"tariffs": [tariff], "time_zone": "UTC"}
    file = write(json.dumps(document), "tariffs.json")
    named = '[charge_points."AC-1"]\n[charge_points."DC-1"]\nmax_power_kw = 150\n'
    path = write('[pricing]\ntariffs = "tariffs.json"\n' + named)
    assert main(["check", "--config", str(path)]) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "max_power_kw" in line]
    assert line.startswith(f'{file}: warning: max_power_kw is not set for "AC-1": up to 500 kW')
    assert "DC-1" not in line
    write(json.dumps(document | {"policy": {"max_power_kw": 22}}), "tariffs.json")
    assert main(["check", "--config", str(path)]) == 0
    assert "max_power_kw" not in capsys.readouterr().err


def test_the_example_configuration_and_its_tariffs_are_fine(capsys):
    assert main(["check", "--config", str(DEPLOY / "gateway.example.toml")]) == 0
    out, err = capsys.readouterr()
    assert (out, err) == ("configuration and tariffs are fine\n", "")


def test_the_example_has_every_key_and_tells_the_defaults():
    text = (DEPLOY / "gateway.example.toml").read_text()
    table, told = "", {}
    for line in text.splitlines():
        if found := re.match(r"\[(\w+)", line):
            table = found[1]
        elif found := re.match(r'#?(\w+) = ("[^"]*"|\[\]|[^\s#]+)', line):
            told.setdefault(table, {})[found[1]] = found[2], line
    for name, kind in {**_SECTIONS, **_TABLES}.items():
        fields = {field.name: field for field in attrs.fields(kind)}
        assert set(told[name]) == set(fields)
        for key, (value, line) in told[name].items():
            default, read = fields[key].default, fields[key].metadata["read"]
            if default is None:
                assert re.search(r"#.*\bnone\b|#.*\bthat of\b|#.*\bthe tariff file's\b", line), line
                continue
            given = {"true": True, "false": False, "[]": []}.get(value, value.strip('"'))
            assert read(given) == default, line


def test_the_example_says_of_every_key_what_it_is_for():
    text, _, _ = (DEPLOY / "gateway.example.toml").read_text().partition("[party]")
    keys = re.findall(r"(?m)^#?\w+ = .*$", text)
    assert len(keys) > 35
    assert [line for line in keys if not re.search(r"\s# \S", line)] == []


def test_the_example_is_right_with_every_key_uncommented(tmp_path, certificates):
    text = (DEPLOY / "gateway.example.toml").read_text()
    text = re.sub(r"(?m)^#(\w+ = )", r"\1", text).replace("$argon2id$...", HASH)
    for name, real in {"server.pem": "cert.pem", "server.key": "key.pem",
                       "charge-points-ca.pem": "ca.pem"}.items():  # fmt: skip
        text = text.replace(name, real)
    (tmp_path / "tariffs.example.json").write_text((DEPLOY / "tariffs.example.json").read_text())
    (tmp_path / "gateway.toml").write_text(text)
    config, _ = load(tmp_path / "gateway.toml", {})
    assert config.charge_points["CP-1"].password_hash == HASH
    assert config.id_tags["04A1B2C3"].parent == "FLEET"
