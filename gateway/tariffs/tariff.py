"""What a session costs per kWh, hour and start, and when: an OCPI tariff made ready to apply.

The rules are those of OCPI 2.2.1 (mod_tariffs); `file` reads and checks the JSON.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import attrs

from ..domain.fixed_point import FOREVER, SECOND, Exact, decimal, instant
from .dimensions import DAY, DIMENSIONS, ENERGY, FLAT, PARKING_TIME, TIME
from .policy import POLICY_FIELDS, Policy
from .restrictions import Restrictions


@attrs.frozen(kw_only=True)
class Component:
    """One price.

    price: per unit of the dimension, as in the file.  vat: percent.
    excl, incl: the price of one nWh, one us or one session, in 1/scale of the currency unit.
    step: nWh or us; 0 where the volume is not stepped.
    display_price: the price including VAT, per kWh, per minute or per session.
    """

    dimension: str
    price: Decimal
    vat: Decimal | None
    step_size: int
    step: int
    excl: int
    incl: int
    display_price: Decimal


@attrs.frozen(kw_only=True)
class Element:
    """components: index in the tariff's components, by dimension."""

    components: Mapping[str, int]
    restrictions: Restrictions


class Limit(NamedTuple):
    """A least or greatest price of a session, in 1/scale of the currency unit."""

    excl: int | None
    incl: int | None


class Rates(NamedTuple):
    """The component that prices each dimension; -1 where none does."""

    flat: int = -1
    energy: int = -1
    time: int = -1
    parking: int = -1


UNPRICED = Rates()


@attrs.frozen(kw_only=True, eq=False)
class Tariff:
    """One OCPI tariff.

    valid_from, valid_to: sessions that start from and before then; None: no bound.
    snapshot, sha256: the object as read, and the hash of its canonical JSON.
    """

    id: str
    currency: str
    digits: int
    scale: int
    components: tuple[Component, ...]
    elements: tuple[Element, ...]
    min_price: Limit | None
    max_price: Limit | None
    valid_from: datetime | None
    valid_to: datetime | None
    snapshot: dict[str, Any]
    sha256: str
    by_power: bool
    by_current: bool
    by_calendar: bool
    times: tuple[int, ...]
    durations: tuple[int, ...]
    energies: tuple[int, ...]
    powers: tuple[tuple[int, int], ...] = ()
    currents: tuple[int, ...] = ()

    dimensions: frozenset[str] = attrs.field(init=False)  # none: it prices no session
    zero: Decimal = attrs.field(init=False)

    @dimensions.default
    def _dimensions(self) -> frozenset[str]:
        return frozenset(component.dimension for component in self.components)

    @zero.default
    def _zero(self) -> Decimal:
        return decimal(0, self.digits)

    def rates(
        self,
        *,
        at: Exact,
        start: int,
        energy: Exact,
        power: tuple[Exact, Exact] | None,
        current: int | None,
        zone: ZoneInfo,
    ) -> tuple[Rates, Exact, int]:
        """The components that price the instant `at`, until when, and until how much energy.

        For each dimension the first element counts that holds and has it (OCPI 2.2.1 mod_tariffs,
        TariffElement).
        """
        until: Exact = FOREVER
        date = time = 0
        if self.by_calendar:
            date, time, until = self._calendar(at, zone)
        duration = at - start
        for bound in self.durations:
            if duration < bound:
                until = min(until, start + bound)
                break
        until_nwh = FOREVER
        for bound in self.energies:
            if energy < bound:
                until_nwh = bound
                break
        found: dict[str, int] = {}
        for element in self.elements:
            components, holds = element.components, element.restrictions
            if (
                components.keys() - found.keys()
                and holds.on_meter(duration, energy)
                and holds.on_calendar(date, time)
                and (not self.by_power or holds.on_power(power))
                and (not self.by_current or holds.on_current(current))
            ):
                found = {**components, **found}
                if len(found) == len(DIMENSIONS):
                    break
        get = found.get
        rates = Rates(get(FLAT, -1), get(ENERGY, -1), get(TIME, -1), get(PARKING_TIME, -1))
        return rates, until, until_nwh

    def brackets(self, power: tuple[Exact, Exact] | None, current: int | None) -> tuple[int, int]:
        """How many of the tariff's bounds power and current reach, by which one tells all elements
        that hold from all others; -1 for what is not known."""
        powers = currents = -1
        if power is not None:
            powers = sum(power[0] * per >= nwh * power[1] for nwh, per in self.powers)
        if current is not None:
            currents = bisect_right(self.currents, current)
        return powers, currents

    def _calendar(self, at: Exact, zone: ZoneInfo) -> tuple[int, int, int]:
        """Local date and time of day, and when one of them next crosses a bound.

        That is the next time of day named in the tariff, midnight, or a jump of the clock.
        """
        us = int(at)
        offset = _offset(us, zone)
        days, time = divmod(us + offset, DAY)
        until = us - time + next((bound for bound in self.times if bound > time), DAY)
        if _offset(until, zone) != offset:
            early, late = us, until
            while late - early > 1:
                middle = (early + late) // 2
                if _offset(middle, zone) == offset:
                    early = middle
                else:
                    late = middle
            until = late
        return days + _ORDINAL_1970, time, until


_ORDINAL_1970 = 719_163


def _offset(us: int, zone: ZoneInfo) -> int:
    offset = instant(us).astimezone(zone).utcoffset()
    assert offset is not None  # noqa: S101  for the type checker: `astimezone` gave the zone
    return (offset.days * 86400 + offset.seconds) * SECOND + offset.microseconds


@attrs.frozen(kw_only=True, eq=False)
class Terms:
    """What holds for one session from its start to its receipt.

    tariff: None: energy only.  unpriced: prices are configured, but none for this session.
    """

    tariff: Tariff | None = None
    policy: Policy = attrs.field(factory=Policy)
    time_zone: str | None = None
    zone: ZoneInfo = attrs.field(factory=lambda: ZoneInfo("UTC"))
    unpriced: bool = False

    def policy_snapshot(self) -> dict[str, Any]:
        return {name: getattr(self.policy, name) for name in POLICY_FIELDS}


@attrs.frozen(kw_only=True)
class Assignment:
    """Which tariffs a connector may have, in order.

    connector_id: None: all of them.  default: only where no other assignment covers it.
    """

    charge_point: str = "*"
    connector_id: int | None = None
    default: bool = False
    tariffs: tuple[Tariff, ...] = ()

    def covers(self, charge_point_id: str, connector_id: int) -> bool:
        return self.connector_id in (None, connector_id) and fnmatchcase(
            charge_point_id, self.charge_point
        )

    def hides(self, other: Assignment) -> bool:
        """Whether the other one, coming later, never holds."""
        return (
            self.default is other.default
            and self.charge_point in ("*", other.charge_point)
            and self.connector_id in (None, other.connector_id)
        )


@attrs.frozen(kw_only=True, eq=False)
class TariffBook:
    """The tariffs of a tariff file, and the connectors that each is assigned to."""

    assignments: tuple[Assignment, ...] = ()
    policy: Policy = attrs.field(factory=Policy)
    time_zone: str | None = None
    zones: Mapping[str, str] = attrs.field(factory=dict)
    max_power_kw: Mapping[str, Decimal] = attrs.field(factory=dict)

    @classmethod
    def empty(cls) -> TariffBook:
        """No prices: energy only."""
        return cls()

    def terms_for(self, charge_point_id: str, connector_id: int, at: datetime) -> Terms:
        """Choose the tariff, policy and time zone for a session that starts at `at`.

        The first tariff counts that is assigned to the connector, prices sessions and is valid at
        the start (OCPI 2.2.1 mod_tariffs, start_date_time); it holds until the receipt.
        """
        time_zone = self.zones.get(charge_point_id, self.time_zone)
        policy = self.policy
        power = self.max_power_kw.get(charge_point_id)
        if power is not None:
            policy = attrs.evolve(policy, max_power_kw=power)
        tariff = next(
            (
                tariff
                for tariff in self._candidates(charge_point_id, connector_id)
                if tariff.dimensions
                and (tariff.valid_from is None or tariff.valid_from <= at)
                and (tariff.valid_to is None or at < tariff.valid_to)
            ),
            None,
        )
        return Terms(
            tariff=tariff,
            policy=policy,
            time_zone=time_zone,
            zone=ZoneInfo(time_zone or "UTC"),
            unpriced=tariff is None and bool(self.assignments),
        )

    def _candidates(self, charge_point_id: str, connector_id: int) -> tuple[Tariff, ...]:
        for default in (False, True):
            for assignment in self.assignments:
                if assignment.default is default and assignment.covers(
                    charge_point_id, connector_id
                ):
                    return assignment.tariffs
        return ()
