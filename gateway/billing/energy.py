"""Which of a reading's samples say how much energy has flowed.

What counts is the import register at the outlet, in Wh or kWh, total before line phases before
neutral (OCPP 1.6 §7.31, §7.36, §7.37, §7.40).  `Transaction.Begin` never counts as a live
value: some charge points repeat it in every message after the live one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import TypeAlias

import attrs

from ..domain.event_values import Sample
from ..domain.fixed_point import scaled, times

REGISTER = "Energy.Active.Import.Register"
INTERVAL = "Energy.Active.Import.Interval"
POWER = "Power.Active.Import"
CURRENT = "Current.Import"

LOCATIONS = ("Outlet", "Cable", "Body", "Inlet")  # in order of trust; EV is never billed
UNNAMED_PENALTY = len(LOCATIONS)  # added to the rank of readings that do not name the transaction
NO_LOCATION = 2 * UNNAMED_PENALTY
_LOCATIONS: Mapping[str | None, int] = {None: 0} | {n: i for i, n in enumerate(LOCATIONS)}
_CONTEXTS: Mapping[str | None, int] = {
    "Transaction.End": 0,
    None: 1,
    "Sample.Periodic": 1,
    "Sample.Clock": 2,
    "Trigger": 3,
    "Interruption.Begin": 4,
    "Interruption.End": 4,
}
_OTHER_CONTEXT = 5
_BEGIN = "Transaction.Begin"
_PHASES = {
    None: "",
    "L1": "L1",
    "L2": "L2",
    "L3": "L3",
    "L1-N": "L1",
    "L2-N": "L2",
    "L3-N": "L3",
    "N": "N",
}
_DIGITS = {None: 9, "wh": 9, "kwh": 12, "Wh": 9, "kWh": 12}
Currents: TypeAlias = "tuple[tuple[str, int], ...]"
"""nA by phase."""
_KINDS = {None: 0, REGISTER: 0, INTERVAL: 1, POWER: 2, CURRENT: 3}


@attrs.frozen(slots=True)
class EnergyValue:
    """One usable energy value: ranks count from 0, the most trusted; phase "" is the total.

    location: its rank in LOCATIONS, `UNNAMED_PENALTY` more where the transaction is not named.
    """

    location: int
    phase: str
    context: int
    nwh: int


@attrs.frozen(slots=True)
class UsableSamples:
    """What one reading holds for the accountant.

    begin: nWh of a Transaction.Begin register, the stand-in for a missing meterStart.
    rejected: an energy value could not be read.  power: active power is sampled.
    currents: amperes imported by phase, in nA; phase "" is the total.
    """

    registers: tuple[EnergyValue, ...] = ()
    intervals: tuple[EnergyValue, ...] = ()
    begin: int | None = None
    rejected: bool = False
    power: bool = False
    currents: Currents = ()
    signed: tuple[Sample, ...] = ()


def energy_of(value: str, unit: str | None) -> int | None:
    """nWh of a sample's value; None where value or unit cannot be used."""
    digits = _DIGITS.get(unit)
    if digits is None:
        digits = _DIGITS.get((unit or "").strip().lower())
        if digits is None:
            return None
    return scaled(value, digits)


def usable_samples(
    samples: Sequence[Sample],
    *,
    with_current: bool = False,
    named: bool = True,
    scale: Decimal | None = None,
) -> UsableSamples:
    """Everything in a reading that energy, price or receipt may rest on.

    with_current: the current is asked for.  named: the reading names its transaction.
    scale: what registers and intervals are multiplied by; None for 1.
    """
    rank = 0 if named else UNNAMED_PENALTY
    registers: list[EnergyValue] = []
    intervals: list[EnergyValue] = []
    currents: list[Sample] = []
    signed: list[Sample] = []
    begin: int | None = None
    rejected = power = False
    for sample in samples:
        if sample.format == "SignedData":
            signed.append(sample)
            continue
        kind = _KINDS.get(sample.measurand)
        if kind is None:
            continue
        if kind == 2:
            power = True
        elif kind == 3:
            if with_current:
                currents.append(sample)
        elif sample.location != "EV":
            phase = _PHASES.get(sample.phase)
            if phase is None:
                continue  # between two lines, or unknown: never part of a sum
            location = _LOCATIONS.get(sample.location)
            nwh = energy_of(sample.value, sample.unit)
            if nwh is not None and scale is not None:
                nwh = times(nwh, scale)
            if nwh is None or location is None:
                rejected = True
            elif sample.context == _BEGIN:
                if kind == 0 and phase == "" and (begin is None or nwh < begin):
                    begin = nwh
            else:
                context = _CONTEXTS.get(sample.context, _OTHER_CONTEXT)
                energy_value = EnergyValue(rank + location, phase, context, nwh)
                (registers if kind == 0 else intervals).append(energy_value)
    return UsableSamples(
        tuple(registers),
        tuple(intervals),
        begin,
        rejected,
        power,
        _currents(currents) if currents else (),
        tuple(signed),
    )


def most_trusted(energy_values: Sequence[EnergyValue], location: int) -> dict[str, int]:
    """nWh by phase at that location, one value each: the most trusted context's, then the lower."""
    if len(energy_values) == 1:
        (energy_value,) = energy_values
        return {energy_value.phase: energy_value.nwh} if energy_value.location == location else {}
    best: dict[str, EnergyValue] = {}
    for energy_value in energy_values:
        if energy_value.location != location:
            continue
        other = best.get(energy_value.phase)
        if other is None or (energy_value.context, energy_value.nwh) < (other.context, other.nwh):
            best[energy_value.phase] = energy_value
    return {phase: energy_value.nwh for phase, energy_value in best.items()}


def total_current(currents: Currents) -> int | None:
    """nA over all phases: the total where it was sampled, else the sum of the lines, else what
    was sampled on the neutral alone."""
    by_phase = dict(currents)
    total = by_phase.get("")
    if total is not None:
        return total
    lines = [value for phase, value in by_phase.items() if phase != "N"]
    return sum(lines) if lines else by_phase.get("N")


def _currents(samples: Iterable[Sample]) -> Currents:
    by_phase: dict[str, int] = {}
    for sample in samples:
        phase = _PHASES.get(sample.phase)
        if phase is None or sample.context == _BEGIN or sample.location == "EV":
            continue
        if (sample.unit or "A").strip().lower() not in ("a", "amp"):
            continue
        value = scaled(sample.value, 9)
        if value is not None:
            by_phase[phase] = value
    return tuple(by_phase.items())
