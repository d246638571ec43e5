"""What deploy/ may name of the gateway, taken from the gateway itself."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.arguments import parser
from gateway.config.load import _SECTIONS, ENVIRONMENT, _keys_of, load
from gateway.config.model import Config
from gateway.config.tariffs import load_tariff_book

DEPLOY = Path(__file__).parents[2] / "deploy"
PROGRAM = "/opt/ocpp-gateway/bin/ocpp-gateway"
CONFIG = "/etc/ocpp-gateway/gateway.toml"
STORE = str(Config().storage.url.parent)
OCPP, ADMIN = Config().ocpp.listen.port, Config().admin.listen.port
VARIABLES = {
    f"{ENVIRONMENT}{section}_{key}".upper()
    for section, kind in _SECTIONS.items()
    for key in _keys_of(kind)
}
LEAVING_S = 2 * Config().ocpp.grace_s + 10
"""As long as an orderly end may take: charge points have grace_s, then ThingsBoard has, and then
the store is closed."""


def parsed(arguments: Sequence[str]) -> Any:
    """The arguments as the command line reads them; the test fails where it does not."""
    try:
        return parser().parse_args(list(arguments))
    except SystemExit:
        pytest.fail(f"no such command: {' '.join(arguments)}")


def configured(path: Path, folder: Path, inside: Mapping[str, str], **environment: str) -> Config:
    """What the gateway makes of a configuration of deploy/, with its tariffs.

    inside: where the files that it names by their path in the container or on the host are here.
    """
    text = path.read_text()
    for there, here in inside.items():
        text = text.replace(f'"{there}"', f'"{here}"')
    placed = folder / "gateway.toml"
    placed.write_text(text)
    config, warnings = load(placed, environment)
    assert not warnings
    _, warnings = load_tariff_book(config)
    assert not warnings
    return config


def variables(text: str) -> set[str]:
    """The gateway's variables that a file names."""
    return set(re.findall(rf"\b{ENVIRONMENT}\w+", text))


def pinned(image: str) -> bool:
    """With a tag that names a version, or a digest."""
    _, _, tag = image.rpartition(":")
    return "/" not in tag and re.match(r"v?\d+\.\d+|[0-9a-f]{64}$", tag) is not None


def seconds(text: str) -> float:
    """Of a duration such as 45s, as compose files have it."""
    number, unit = re.fullmatch(r"(\d+)(s|m)", text).groups()
    return int(number) * {"s": 1, "m": 60}[unit]


def secrets_in(document: Any, where: str = "") -> Iterator[str]:
    """Places where a secret stands in clear: a value under a name like `password`."""
    if isinstance(document, dict):
        for key, value in document.items():
            yield from _secret(str(key), value, f"{where}.{key}")
            yield from secrets_in(value, f"{where}.{key}")
        if "name" in document and "value" in document:  # as Kubernetes lists variables
            yield from _secret(str(document["name"]), document["value"], where)
    elif isinstance(document, list):
        for number, value in enumerate(document):
            if isinstance(value, str) and (found := re.match(r"(?:--)?([\w-]+)=(.*)", value)):
                yield from _secret(found[1], found[2], f"{where}[{number}]")
            yield from secrets_in(value, f"{where}[{number}]")


def _secret(name: str, value: object, where: str) -> Iterator[str]:
    kind = name.lower().replace("-", "_").replace("secretname", "secret_file")
    if not isinstance(value, str) or not re.search(r"passw|token|secret|api_?key", kind):
        return
    by_reference = kind.endswith("_file") or re.match(r'["\']?(\$|\.?/|secrets/|$)', value)
    if not by_reference:
        yield where
