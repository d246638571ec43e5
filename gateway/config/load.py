"""One TOML file and the environment -> frozen Config.  All faults are reported at once."""

from __future__ import annotations

import difflib
import re
import ssl
import tomllib
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import attrs

from . import values
from .model import Admin, ChargePoint, Commands, Config, IdTag, Ocpp, Pricing, Storage, Thingsboard

ENVIRONMENT = "OCPP_GATEWAY_"
T = TypeVar("T")


@attrs.frozen
class Fault:
    """fatal: False for a warning."""

    where: str
    what: str
    fatal: bool = True


class ConfigError(Exception):
    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("\n".join(f"{fault.where}: {fault.what}" for fault in faults))
        self.faults = faults


# --- the file's tables ---------------------------------------------------------------------------


_SECTIONS: Mapping[str, type[Any]] = {
    "ocpp": Ocpp,
    "thingsboard": Thingsboard,
    "storage": Storage,
    "pricing": Pricing,
    "commands": Commands,
    "admin": Admin,
}
_TABLES: Mapping[str, type[Any]] = {"charge_points": ChargePoint, "id_tags": IdTag}


# --- reading -------------------------------------------------------------------------------------


def load(path: Path | None, environment: Mapping[str, str]) -> tuple[Config, list[Fault]]:
    """The configuration and its warnings.  Raises ConfigError with every fault there is.

    path: None for the defaults and the environment alone.  The environment beats the file.
    """
    config, faults = load_with_faults(path, environment)
    if any(fault.fatal for fault in faults):
        raise ConfigError(faults)
    return config, faults


def load_with_faults(
    path: Path | None, environment: Mapping[str, str]
) -> tuple[Config, list[Fault]]:
    """The configuration, and all that is wrong with it; a key at fault has its default.

    Raises ConfigError where there is nothing to read.
    """
    document, name = _document(path)
    reader = _Reader(name, Path() if path is None else path.parent, environment)
    for table in document:
        if table not in (*_SECTIONS, *_TABLES, "party"):
            reader.fault(
                table, "no such table" + _suggestion(table, [*_SECTIONS, *_TABLES, "party"])
            )
    parts: dict[str, Any] = {
        section: reader.section(section, kind, document.get(section, {}))
        for section, kind in _SECTIONS.items()
    }
    for table, kind in _TABLES.items():
        parts[table] = reader.tables_by_name(table, kind, document.get(table, {}))
    parts["party"] = reader.table("party", document.get("party", {}))
    reader.warn_of_unknown_variables()
    config = Config(**parts)
    _check_across_keys(config, reader)
    return config, reader.faults


def _document(path: Path | None) -> tuple[dict[str, Any], str]:
    if path is None:
        return {}, "defaults"
    try:
        return tomllib.loads(path.read_text("utf-8-sig"), parse_float=Decimal), str(path)
    except FileNotFoundError:
        raise ConfigError([Fault(str(path), "there is no such file")]) from None
    except (OSError, UnicodeDecodeError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else exc
        raise ConfigError([Fault(str(path), f"cannot be read: {why}")]) from exc
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError([Fault(str(path), f"not TOML: {exc}")]) from exc


class _Reader:
    def __init__(self, name: str, folder: Path, environment: Mapping[str, str]) -> None:
        self.faults: list[Fault] = []
        self._name = name
        self._folder = folder
        self._environment = {
            key: value for key, value in environment.items() if key.startswith(ENVIRONMENT)
        }
        self._names: list[str] = []

    def fault(self, key: str, what: str, *, fatal: bool = True) -> None:
        self.faults.append(Fault(f"{self._name}: {key}", what, fatal))

    def section(self, section: str, kind: type[T], given: object) -> T:
        """A table of the file, each key of which the environment may give too."""
        if not isinstance(given, dict):
            self.fault(section, "must be a table")
            given = {}
        found = self._with_paths(kind, given)
        variables: dict[str, str] = {}
        for key in _keys_of(kind):
            name = f"{ENVIRONMENT}{section}_{key}".upper()
            self._names.append(name)
            if name in self._environment:
                for other in (key.removesuffix("_file"), key.removesuffix("_file") + "_file"):
                    if other not in variables:
                        found.pop(other, None)
                found[key] = self._environment[name]
                variables[key] = name
        return self._read(section, kind, found, variables)

    def table(self, name: str, given: object) -> dict[str, Any]:
        """A table of the file as it is: the part of the gateway that it is for checks it."""
        if not isinstance(given, dict):
            self.fault(name, "must be a table")
            return {}
        return given

    def tables_by_name(self, table: str, kind: type[T], given: object) -> dict[str, T]:
        """A table of tables, by a name each: for the file only."""
        if not isinstance(given, dict) or not all(isinstance(one, dict) for one in given.values()):
            self.fault(table, f'must hold tables, like [{table}."NAME"]')
            return {}
        return {
            name: self._read(f'{table}."{name}"', kind, self._with_paths(kind, one), {})
            for name, one in given.items()
        }

    def warn_of_unknown_variables(self) -> None:
        """Warn of variables that mean nothing.  (Kubernetes makes some of a service's name.)"""
        for name in sorted(self._environment.keys() - set(self._names)):
            what = "no such key" + _suggestion(name, self._names)
            self.faults.append(Fault(f"environment: {name}", what, fatal=False))

    def _with_paths(self, kind: type[Any], given: dict[str, Any]) -> dict[str, Any]:
        """The names of files in a file count from its own folder."""
        files = {key for key, field in _keys_of(kind).items()
                 if key != field.name or field.metadata["read"] is values.file}  # fmt: skip
        return {
            key: str(self._folder / value)
            if key in files and isinstance(value, str) and value
            else value
            for key, value in given.items()
        }

    def _read(
        self, where: str, kind: type[T], given: dict[str, Any], variables: Mapping[str, str]
    ) -> T:
        """variables: keys that the environment gave -> the variable's name."""
        fields = _keys_of(kind)
        read: dict[str, Any] = {}
        for key, value in given.items():
            try:
                field = fields.get(key)
                if field is None:
                    raise ValueError("no such key" + _suggestion(key, list(fields)))
                if field.name in read:
                    raise ValueError(f"{field.name} is given already")
                if key != field.name:
                    value = Path(values.file(value)).read_text("utf-8").strip()
                read[field.name] = field.metadata["read"](value)
            except (ValueError, OSError) as exc:
                if key in variables:
                    self.faults.append(Fault(f"environment: {variables[key]}", str(exc)))
                else:
                    self.fault(f"{where}.{key}", str(exc))
        return kind(**read)


def _keys_of(kind: type[Any]) -> dict[str, attrs.Attribute[Any]]:
    """What a table's keys may be called: a secret may also lie in a file, `<key>_file`."""
    keys: dict[str, attrs.Attribute[Any]] = {}
    for field in attrs.fields(kind):
        keys[field.name] = field
        if field.metadata["secret"]:
            keys[field.name + "_file"] = field
    return keys


def _suggestion(word: str, words: list[str]) -> str:
    close = difflib.get_close_matches(word, words, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _check_across_keys(config: Config, reader: _Reader) -> None:
    """Check what no single key can show."""
    ocpp = config.ocpp
    if (ocpp.tls_cert is None) != (ocpp.tls_key is None):
        reader.fault("ocpp.tls_cert", "tls_cert and tls_key belong together")
    _check_certificates(config, reader)
    if ocpp.listen_tls is not None and ocpp.tls_cert is None:
        reader.fault("ocpp.listen_tls", "needs tls_cert and tls_key")
    if ocpp.client_ca is not None and ocpp.tls_cert is None:
        reader.fault("ocpp.client_ca", "needs tls_cert and tls_key")
    if config.thingsboard.ca_cert is not None and not config.thingsboard.tls:
        reader.fault("thingsboard.ca_cert", "is of no use without tls = true", fatal=False)
    if config.thingsboard.access_token is None:
        reader.fault(
            "thingsboard.access_token",
            "is missing: ThingsBoard refuses a connection without one (a plain broker may not)",
            fatal=False,
        )
    if config.thingsboard.compat == "node-red" and config.commands.default_id_tag is None:
        reader.fault(
            "commands.default_id_tag",
            'is missing: the RPC `settest` starts nothing without (the prototype had "12345678")',
            fatal=False,
        )
    if config.thingsboard.protocol == "3.1.1":
        reader.fault(
            "thingsboard.protocol",
            "with MQTT 3.1.1 ThingsBoard acknowledges what it refuses: data can be lost unseen",
            fatal=False,
        )
    for name in config.charge_points:
        if not re.fullmatch(r"[A-Za-z0-9 _.:@*=-]{1,48}", name):
            reader.fault(
                f'charge_points."{name}"',
                "no charge point id: 1 to 48 of A-Z a-z 0-9 blank _ . : @ * = -",
            )
    for name in config.id_tags:
        if not 0 < len(name) <= 20:
            reader.fault(f'id_tags."{name}"', "an id tag has 1 to 20 characters")


def _check_certificates(config: Config, reader: _Reader) -> None:
    ocpp = config.ocpp
    if ocpp.tls_cert is not None and ocpp.tls_key is not None:
        try:
            # A key that needs a password must not ask the terminal for it.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
                ocpp.tls_cert, ocpp.tls_key, password=""
            )
        except (ssl.SSLError, ValueError) as exc:
            reader.fault("ocpp.tls_cert", f"{_reason(exc)} ({ocpp.tls_cert}, {ocpp.tls_key})")
    authorities = {
        "ocpp.client_ca": ocpp.client_ca,
        "thingsboard.ca_cert": config.thingsboard.ca_cert,
    }
    for key, path in authorities.items():
        if path is not None:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
            except ssl.SSLError as exc:
                reader.fault(key, f"{path} is no file of certificates ({_reason(exc)})")


def _reason(exc: Exception) -> str:
    """What OpenSSL found wrong: `[SSL: KEY_VALUES_MISMATCH] ...` -> key values mismatch"""
    reason = getattr(exc, "reason", None)
    if not reason:
        return "not a certificate chain and its key in PEM form, without a password"
    return str(reason).replace("_", " ").lower()
