"""Tariffs that a configuration names, and the examples in deploy/."""

from __future__ import annotations

import json
import re
from pathlib import Path

import attrs
import pytest

from gateway.cli.main import main
from gateway.config.load import _SECTIONS, _TABLES, load

from .conftest import HASH

DEPLOY = Path(__file__).parents[2] / "deploy"


def test_faults_of_tariffs_are_reported_with_their_place_beside_those_of_the_file(write, capsys):
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
    printed = capsys.readouterr().err.splitlines()
    for place in (
        f"{path}: ocpp.heartbeat_interval_s: ",
        f"{file}: tariffs[0].elements[0].price_components[0].type: ",
        f"{file}: assign[0].tariffs[0]: ",
        f"{file}: policy.idle_grace_s: ",
    ):
        assert [line for line in printed if line.startswith(place)], (place, printed)


@pytest.mark.parametrize("text", ["{", "[1,", "\x00", '{"tariffs": NaN}'])
def test_tariffs_that_are_no_json_are_reported(text, write, capsys):
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
    table, documented = "", {}
    for line in text.splitlines():
        if found := re.match(r"\[(\w+)", line):
            table = found[1]
        elif found := re.match(r'#?(\w+) = ("[^"]*"|\[\]|[^\s#]+)', line):
            documented.setdefault(table, {})[found[1]] = found[2], line
    for name, kind in {**_SECTIONS, **_TABLES}.items():
        fields = {field.name: field for field in attrs.fields(kind)}
        assert set(documented[name]) == set(fields)
        for key, (value, line) in documented[name].items():
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
