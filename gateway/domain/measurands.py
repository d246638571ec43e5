"""What a connector measures at one instant, under the names that telemetry uses.

Absent where it was not sampled or cannot be read: no value is ever taken for 0.  A missing
SoC is not an empty battery, and an offered current is a limit, not a measurement.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

from .event_values import Sample

_NUMBER = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,15})?")
_BLANKS = " \t\r\n"
_ROOT_OF_3 = 3**0.5
_ONE, _THOUSAND = 1.0, 1000.0

_LOCATIONS = {None: 0, "Outlet": 0, "Cable": 1, "Body": 2, "Inlet": 3, "EV": 9}
_EV = 9
_BETWEEN = ("L1-L2", "L2-L3", "L3-L1")
_PHASES = (None, "L1", "L2", "L3", "L1-N", "L2-N", "L3-N", *_BETWEEN, "N")


class _Kind(NamedTuple):
    """units: factor by spelling, None being the default unit's.

    key: of the overall value.  lines, between, neutral: of the phases' values.
    """

    key: str
    units: Mapping[str | None, float]
    lines: tuple[str, ...]
    between: tuple[str, ...]
    neutral: str
    signed: bool = False
    of_vehicle: bool = False

    def key_of(self, phase: str | None) -> str:
        """phase: as OCPP has it; None: overall."""
        if phase is None:
            return self.key
        if phase == "N":
            return self.neutral
        if phase in _BETWEEN:
            return self.between[_BETWEEN.index(phase)]
        return self.lines[int(phase[1]) - 1]


def _kind(
    quantity: str,
    unit: str,
    units: Mapping[str | None, float],
    *,
    signed: bool = False,
    of_vehicle: bool = False,
) -> _Kind:
    keys = [f"{quantity}_{phase}_{unit}" for phase in ("l1", "l2", "l3", "1-2", "2-3", "3-1", "n")]
    return _Kind(
        f"{quantity}_{unit}",
        units,
        tuple(keys[:3]),
        tuple(keys[3:6]),
        keys[6],
        signed,
        of_vehicle,
    )


def _units(*plain: str, thousand: str | None = None) -> dict[str | None, float]:
    units: dict[str | None, float] = dict.fromkeys((None, *plain, *map(str.lower, plain)), _ONE)
    if thousand is not None:
        units |= dict.fromkeys((thousand, thousand.lower()), _THOUSAND)
    return units


_WATTS = _units("W", thousand="kW")
_AMPERES = _units("A", "Amp")
_ENERGY = _units("Wh", thousand="kWh")
_CELSIUS = _units("Celsius", "Celcius")  # OCPP 1.6's schema has the misspelling, too
_METER = _kind("meter", "wh", _ENERGY)
_EXPORT = _kind("energy_export", "wh", _ENERGY)
# A car that gives energy back has a negative sign (V2G).
_POWER = _kind("power", "w", _WATTS, signed=True)
_CURRENT = _kind("current", "a", _AMPERES, signed=True)
_VOLTAGE = _kind("voltage", "v", _units("V", "Volt"))
_LASTING = (_CURRENT, _METER, _EXPORT)
REGISTERS = (_METER.key, _EXPORT.key)
"""The keys of registers, which only grow."""

CURRENTS = (_CURRENT.key, *_CURRENT.lines)
"""The keys of the current that flows."""

_LASTING_KEYS = frozenset((*CURRENTS, *REGISTERS))

_KINDS: Mapping[str | None, _Kind] = {
    None: _METER,
    "Energy.Active.Import.Register": _METER,
    "Energy.Active.Export.Register": _EXPORT,
    "Power.Active.Import": _POWER,
    "Power.Offered": _kind("power_offered", "w", _WATTS),
    "Current.Import": _CURRENT,
    "Current.Offered": _kind("current_offered", "a", _AMPERES),
    "Voltage": _VOLTAGE,
    "SoC": _kind("soc", "percent", _units("Percent", "%"), of_vehicle=True),
    "Temperature": _kind("temperature", "c", _CELSIUS, signed=True, of_vehicle=True),
    "Frequency": _kind("frequency", "hz", _units("Hz", "Hertz")),
}

# (measurand, phase) -> what it is and the key of its value: one look-up for each sample
_PLAN = {
    (measurand, phase): (kind, kind.key_of(phase), phase is not None)
    for measurand, kind in _KINDS.items()
    for phase in _PHASES
}


def instantaneous(
    samples: Sequence[Sample], *, energy_scale: Decimal | None = None
) -> dict[str, float]:
    """The readings by key, like `meter_wh`, `power_w`, `current_l1_a`, `soc_percent`.

    samples: of one instant (OCPP 1.6 §7.33).  These are for people and charts, to six decimals;
    nothing here is billed (that is `energy`'s, in exact numbers).
    energy_scale: what the registers are multiplied by; None for 1.
    """
    found: dict[str, float] = {}
    ranks: dict[str, int] = {}
    phased: list[_Kind] = []
    for sample in samples:
        plan = _PLAN.get((sample.measurand, sample.phase))
        if plan is None or sample.format == "SignedData" or sample.context == "Transaction.Begin":
            continue
        kind, key, of_phase = plan
        text = sample.value
        if _NUMBER.fullmatch(text) is None:
            text = text.strip(_BLANKS)
            if _NUMBER.fullmatch(text) is None:
                continue
        if text[0] == "-" and not kind.signed and text.strip("-0."):
            continue
        factor = kind.units.get(sample.unit)
        if factor is None:
            factor = kind.units.get((sample.unit or "").strip(_BLANKS).lower())
            if factor is None:
                continue
        rank = _LOCATIONS.get(sample.location, _EV)
        if rank == _EV and not kind.of_vehicle:
            continue  # what the car says it takes is not what we deliver
        if key in found and rank >= ranks.get(key, 0):
            continue
        if rank:
            ranks[key] = rank
        else:
            ranks.pop(key, None)
        if energy_scale is not None and kind.units is _ENERGY:
            value = float(Decimal(text) * energy_scale * int(factor))
        else:
            value = float(text) * factor
        found[key] = round(value, 6) + 0.0  # which makes 0 of -0
        if of_phase and kind not in phased:
            phased.append(kind)
    for kind in phased:
        _sum_up(kind, found)
    return found


def lasting_keys(samples: Sequence[Sample]) -> frozenset[str]:
    """The keys of currents and registers that these samples may show; cheaper than to read them."""
    keys: set[str] = set()
    for sample in samples:
        plan = _PLAN.get((sample.measurand, sample.phase))
        if plan is not None and plan[0] in _LASTING:
            keys |= {plan[0].key, plan[1]}
    return frozenset(keys & _LASTING_KEYS)


def _sum_up(kind: _Kind, found: dict[str, float]) -> None:
    """Derive the overall value where only phases were sampled, and keep the phases that count."""
    if kind.key not in found:
        total = _overall(kind, found)
        if total is not None:
            found[kind.key] = total
    if kind is not _CURRENT and kind is not _VOLTAGE:
        for key in kind.lines:
            found.pop(key, None)
    for key in kind.between:
        found.pop(key, None)
    found.pop(kind.neutral, None)


def _overall(kind: _Kind, found: Mapping[str, float]) -> float | None:
    """The sum over the lines; of voltages the mean.

    The neutral's only where nothing else was sampled: some single-phase chargers (Injet) say N
    where they mean their one phase.
    """
    lines = [found[key] for key in kind.lines if key in found]
    if kind is _VOLTAGE:
        if lines:
            return _mean(lines)
        between = [found[key] for key in kind.between if key in found]
        return round(_mean(between) / _ROOT_OF_3, 1) if between else None
    if lines:
        return round(sum(lines), 6)
    return found.get(kind.neutral)


def _mean(values: Sequence[float]) -> float:
    return values[0] if len(values) == 1 else round(sum(values) / len(values), 1)
