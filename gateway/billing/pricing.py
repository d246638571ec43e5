"""What a curve costs: one function of the data so far, for the running cost and the receipt.

`Pricing` goes along the curve and cuts it wherever a price can change: at the local times that a
tariff names, at jumps of the local clock, at durations and energies, with the connector's status,
and at every reading where power or current decide.  Between two cuts one set of prices holds, so
energy and time are only added up, by tariff component.  Between two readings energy flows evenly
(OCPI 2.2.1 mod_cdrs, ChargingPeriod).  What is priced once need not be priced again: the pricing at
a settled point is kept, and a copy of it goes on to wherever the data end.

Each stretch of time is of one kind, by the connector's status in the transaction and the policy:

| kind | status | counted as | priced by |
| --- | --- | --- | --- |
| TIME | Charging and all others | charging time | TIME |
| PAUSED | SuspendedEVSE, where power decides what is idle | charging time | TIME |
| PARKING_TIME | SuspendedEV, Finishing; power below `idle_power_w` | idle time | PARKING_TIME |
| FREE | Faulted, Unavailable (policy) | nothing | nothing |

The idle fee is the price of PARKING_TIME.  It is counted in `Pricing._count`, from the end of the
policy's `idle_grace_s` on, anew for each idle period.

For example, energy costs 0.40 a kWh until 17:00 and 0.60 from then on.  The register shows 10 kWh
at 16:50 and 14 kWh at 17:10.  The stretch is cut at 17:00: 2 kWh flowed on each side, so 12 kWh
cost 4.80 and 2 kWh cost 1.20.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from operator import itemgetter
from typing import NamedTuple, TypeAlias, TypeVar

from ..domain.fixed_point import FOREVER, HOUR, Exact, ratio, whole
from ..tariffs.dimensions import FLAT, PARKING_TIME, PAUSED, TIME
from ..tariffs.tariff import UNPRICED, Rates, Tariff, Terms

N = TypeVar("N", int, "Exact")

States = Sequence[tuple[int, str]]
"""(us, TIME | PAUSED | PARKING_TIME | FREE) from then on, in the order of time; TIME before."""

Currents = Sequence[tuple[int, int | None]]
"""(us, nA) from then on, in the order of time."""


class Extent(NamedTuple):
    """The least and the greatest of what was metered in a period, where the tariff asks for it.

    powers: nWh per us.  currents: nA.  None where it is not asked for, or not known.
    """

    powers: tuple[Exact, Exact] | None = None
    currents: tuple[int, int] | None = None


_NO_EXTENT = Extent()


class Period(NamedTuple):
    """A stretch of the session with one set of prices (OCPI 2.2.1, ChargingPeriod), and with
    powers and currents on one side of each bound that the tariff has for them.

    in_grace: its idle time costs nothing.  flat: a fee per session holds in it.
    """

    start: Exact
    energy: Exact
    charging: Exact
    parking: Exact
    extent: Extent = _NO_EXTENT
    in_grace: bool = False
    flat: bool = False


class Pricing:
    """A session priced from its start up to a point of its curve.

    at, nwh: that point, in us since 1970 and nWh since the start.  charging, idle: us so far.
    kind: of the time from `at` on (see the table above).
    idle_since: us, when the present idle period began; None while it is not idle.
    quantities: nWh, us or 1 by tariff component, in the order in which each first applied.
    last_*: the component that priced the dimension last, -1 for none.
    rates: the components that hold from `at` on.  until, until_nwh: up to when and how much energy.
    power: energy (nWh) and time (us) of the newest interval between two readings.
    """

    __slots__ = (
        "at",
        "charging",
        "currents",
        "extent",
        "idle",
        "idle_since",
        "kind",
        "last_energy",
        "last_parking",
        "last_time",
        "nwh",
        "period",
        "periods",
        "power",
        "quantities",
        "rates",
        "rates_until",
        "start",
        "states",
        "terms",
        "until",
        "until_nwh",
    )

    def __init__(self, terms: Terms, start: int) -> None:
        self.terms = terms
        self.start = start
        self.at: Exact = start
        self.nwh: Exact = 0
        self.charging: Exact = 0
        self.idle: Exact = 0
        self.idle_since: Exact | None = None
        self.kind = TIME
        self.quantities: dict[int, Exact] = {}
        self.last_energy = self.last_time = self.last_parking = -1
        self.rates = UNPRICED
        self.rates_until: Exact = start
        self.until: Exact = start
        self.until_nwh = 0
        self.power: tuple[Exact, Exact] | None = None
        self.states: States = ()
        self.currents: Currents = ()
        # (closed periods, newest first) and (key, start, nWh, charging, idle at its start)
        self.periods: tuple[Period, object] | None = None
        self.period: tuple[_Key, Exact, Exact, Exact, Exact] | None = None
        self.extent = _NO_EXTENT

    def copy(self) -> Pricing:
        """The same pricing, to go on independently."""
        other = Pricing.__new__(Pricing)
        other.terms = self.terms
        other.start = self.start
        other.at = self.at
        other.nwh = self.nwh
        other.charging = self.charging
        other.idle = self.idle
        other.idle_since = self.idle_since
        other.kind = self.kind
        other.quantities = self.quantities.copy()
        other.last_energy = self.last_energy
        other.last_time = self.last_time
        other.last_parking = self.last_parking
        other.rates = self.rates
        other.rates_until = self.rates_until
        other.until = self.until
        other.until_nwh = self.until_nwh
        other.power = self.power
        other.states = self.states
        other.currents = self.currents
        other.periods = self.periods
        other.period = self.period
        other.extent = self.extent
        return other

    def use(self, states: States, currents: Currents) -> None:
        """Price by these from here on; they may differ from those so far only after `at`."""
        if states is not self.states or currents is not self.currents:
            self.states, self.currents = states, currents
            self.until = self.at

    def advance(self, at: int, nwh: int, *, measured: bool = True) -> None:
        """Price up to the next point of the curve.

        at, nwh: the point, as in `Pricing`.
        measured: the energy in between is known; else the power of the interval before goes on
            as far as prices depend on it.
        """
        start, base = self.at, self.nwh
        time, energy = at - start, nwh - base
        if not time and not energy:
            return
        if measured and time:
            self._note_power(energy, time)
        while True:
            if self.until <= self.at or self.nwh >= self.until_nwh:
                self._find_prices()
            if at <= self.until and nwh <= self.until_nwh:
                self._count(at, nwh)
                return
            end: Exact = min(at, self.until)
            end_nwh: Exact = nwh
            if end != at:
                end_nwh = whole(base + ratio(energy * (end - start), time))
            if end_nwh > self.until_nwh:
                end_nwh = self.until_nwh
                end = whole(start + ratio(time * (end_nwh - base), energy))
            self._count(end, end_nwh)
            if end == at and end_nwh == nwh:
                return

    def charging_periods(self) -> list[Period]:
        """All periods up to here, in order (OCPI 2.2.1 mod_cdrs, ChargingPeriod)."""
        found = []
        rest: object = self._periods_now()
        while isinstance(rest, tuple):
            found.append(rest[0])
            rest = rest[1]
        return [p for p in reversed(found) if p.energy or p.charging or p.parking or p.flat]

    def finish(self) -> None:
        """End here.  A session without time and energy has the fee per session all the same."""
        if self.period is None:
            self._find_prices()

    def upcoming(self) -> Pricing:
        """The prices from here on, where one changes at this very instant; not to be advanced."""
        if self.until > self.at and self.nwh < self.until_nwh:
            return self
        upcoming = self.copy()
        upcoming._find_prices()  # noqa: SLF001  its copy
        return upcoming

    # --- steps ---

    def _note_power(self, energy: Exact, time: Exact) -> None:
        self.power = (energy, time)
        tariff, policy = self.terms.tariff, self.terms.policy
        if policy.idle_detection == "power" or (tariff is not None and tariff.by_power):
            self.until = self.rates_until = self.at

    def _count(self, end: Exact, end_nwh: Exact) -> None:
        """Count energy and time up to a point before which no price changes."""
        energy, time, rates = end_nwh - self.nwh, end - self.at, self.rates
        quantities = self.quantities
        if energy:
            component = rates.energy
            if component >= 0:
                quantities[component] = quantities.get(component, 0) + energy
                self.last_energy = component
            self.nwh = end_nwh
        if time:
            if self.kind == TIME:
                self.charging += time
                component = rates.time
                if component >= 0:
                    quantities[component] = quantities.get(component, 0) + time
                    self.last_time = component
            elif self.kind == PARKING_TIME:  # the idle fee is counted here
                self.idle += time
                component = rates.parking
                if component >= 0 and not self.in_grace:
                    quantities[component] = quantities.get(component, 0) + time
                    self.last_parking = component
            self.at = end

    @property
    def in_grace(self) -> bool:
        """Whether it is idle, but not yet so long that it costs anything."""
        since = self.idle_since
        return since is not None and self.at < since + self.terms.policy.grace

    def _find_prices(self) -> None:
        """Find the kind of time and the prices that hold here, and until when they hold."""
        at, terms = self.at, self.terms
        until: Exact = FOREVER
        kind = TIME
        for since, named in self.states:
            if since > at:
                until = since
                break
            kind = named
        policy = terms.policy
        if kind == TIME and policy.idle_detection == "power" and self._idle_by_power():
            kind = PARKING_TIME
        elif kind == PAUSED:
            kind = TIME
        self.kind = kind
        if kind != PARKING_TIME:
            self.idle_since = None
        else:
            if self.idle_since is None:
                self.idle_since = at
            grace = self.idle_since + policy.grace
            if at < grace < until:
                until = grace
        tariff = terms.tariff
        current: int | None = None
        if tariff is None:
            self.until_nwh = FOREVER
        else:
            if tariff.by_current:
                index = bisect_right(self.currents, at, key=itemgetter(0))
                if index:
                    current = self.currents[index - 1][1]
                if index < len(self.currents):
                    until = min(until, self.currents[index][0])
                self.rates_until = at
            if at >= self.rates_until or self.nwh >= self.until_nwh:
                self.rates, self.rates_until, self.until_nwh = tariff.rates(
                    at=at,
                    start=self.start,
                    energy=self.nwh,
                    power=self.power,
                    current=current,
                    zone=terms.zone,
                )
                flat = self.rates.flat
                if flat >= 0 and not self._has_flat():
                    self.quantities[flat] = 1
            until = min(until, self.rates_until)
        self.until = until
        brackets = (0, 0)
        extent = _NO_EXTENT
        if tariff is not None and (tariff.by_power or tariff.by_current):
            brackets = tariff.brackets(self.power, current)
            extent = _extent(tariff, self.power, current)
        self._enter_period((self.rates, kind, self.in_grace, brackets), extent)

    def _has_flat(self) -> bool:
        tariff = self.terms.tariff
        return tariff is not None and any(
            tariff.components[index].dimension == FLAT for index in self.quantities
        )

    def _idle_by_power(self) -> bool:
        if self.power is None:
            return False
        energy, time = self.power
        return energy * HOUR < self.terms.policy.idle * time

    def _enter_period(self, key: _Key, extent: Extent) -> None:
        if self.period is None or self.period[0] != key:
            self.periods = self._periods_now()
            self.period = (key, self.at, self.nwh, self.charging, self.idle)
            self.extent = extent
        elif extent is not _NO_EXTENT:
            self.extent = _joined(self.extent, extent)

    def _periods_now(self) -> tuple[Period, object] | None:
        if self.period is None:
            return None
        (rates, _, in_grace, _), start, nwh, charging, idle = self.period
        closed = Period(
            start,
            self.nwh - nwh,
            self.charging - charging,
            self.idle - idle,
            self.extent,
            in_grace,
            rates.flat >= 0,
        )
        return (closed, self.periods)


_Key: TypeAlias = "tuple[Rates, str, bool, tuple[int, int]]"
"""Prices, kind of time, whether it is in grace, and the brackets of power and current."""


def _extent(tariff: Tariff, power: tuple[Exact, Exact] | None, current: int | None) -> Extent:
    powers = currents = None
    if tariff.by_power and power is not None:
        rate = ratio(*power)
        powers = rate, rate
    if tariff.by_current and current is not None:
        currents = current, current
    return Extent(powers, currents)


def _joined(one: Extent, other: Extent) -> Extent:
    return Extent(_range(one.powers, other.powers), _range(one.currents, other.currents))


def _range(one: tuple[N, N] | None, other: tuple[N, N] | None) -> tuple[N, N] | None:
    if one is None or other is None:
        return one or other
    return min(one[0], other[0]), max(one[1], other[1])
