"""The tariff file that the configuration names, read into a tariff book."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..domain.json_codec import decode_exact
from ..tariffs.file import Fault as TariffFault
from ..tariffs.file import read_tariffs, repeated_keys
from ..tariffs.tariff import TariffBook
from ..tariffs.warnings import warn_of_power
from .load import ConfigError, Fault
from .model import Config


def load_tariff_book(config: Config) -> tuple[TariffBook, list[Fault]]:
    """The tariffs and the warnings about them.  Raises ConfigError with every fault."""
    path = config.pricing.tariffs
    document: Any = {}  # no prices: time zones and max_power_kw hold all the same
    twice: Sequence[TariffFault] = ()
    if path is not None:
        try:
            text = Path(path).read_text("utf-8")
            document, twice = decode_exact(text), repeated_keys(text)
        except (OSError, ValueError, RecursionError) as exc:  # UnicodeDecodeError, DecodeError
            raise ConfigError([Fault(path, f"not readable as JSON: {exc}")]) from exc
    known = config.charge_points.items()
    tariff_book, found = read_tariffs(
        document,
        default_time_zone=config.pricing.time_zone,
        zones={name: cp.time_zone for name, cp in known if cp.time_zone},
        max_power_kw={name: cp.max_power_kw for name, cp in known if cp.max_power_kw},
    )
    faults = [
        Fault(f"{path}: {fault.where}", fault.what, fault.fatal) for fault in (*twice, *found)
    ]
    if any(fault.fatal for fault in faults):
        raise ConfigError(faults)
    without = [name for name, charge_point in known if charge_point.max_power_kw is None]
    if path is not None and tariff_book.assignments:
        faults += [
            Fault(path, warning, False) for warning in warn_of_power(tariff_book.policy, without)
        ]
    return tariff_book, faults
