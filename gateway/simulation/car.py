"""A simulated car at an outlet: the power that it takes, and the meter's register.

With `speed` above 1 the car's time passes faster than the clock.  Timestamps stay those of the real
clock, so the power is scaled instead, but never beyond what the outlet's kind can carry: a central
system may reject a register that rises with more than 500 kW.  A sped-up session of 40
simulated minutes therefore delivers less energy than the same session in real time.
"""

from __future__ import annotations

import random

import attrs

_MAX_AC_W = 43_470.0  # 3 x 63 A at 230 V, the largest connector that IEC 62196-2 type 2 has
_MAX_DC_W = 350_000.0
_STEP_S = 30.0  # of the car's time: short compared with the taper


@attrs.frozen(kw_only=True)
class Outlet:
    """One connector's electrical side.

    power_w: the largest power that it delivers.
    voltage_v: phase to neutral, or the battery's for direct current.
    """

    direct_current: bool = False
    power_w: float = 22_080.0
    phases: int = 3
    voltage_v: float = 230.0


AC_22 = Outlet()
DC_60 = Outlet(direct_current=True, power_w=60_000.0, phases=1, voltage_v=400.0)


@attrs.define(kw_only=True)
class Car:
    """A battery and its charging curve.

    soc, target_soc: 0 to 1; the car wants nothing more from `target_soc` on.
    """

    battery_wh: float
    peak_w: float
    knee_soc: float
    soc: float
    target_soc: float

    @property
    def full(self) -> bool:
        return self.soc >= self.target_soc

    def demand_w(self) -> float:
        """The power that the car would take now: its peak up to the knee, then less and less."""
        if self.full:
            return 0.0
        beyond = max(0.0, (self.soc - self.knee_soc) / (1 - self.knee_soc))
        return self.peak_w * (1 - 0.85 * beyond)


def arriving_car(rng: random.Random, outlet: Outlet) -> Car:
    """A car that will charge for 30 to 45 minutes of its own time at this outlet.

    At direct current that is about 20 kWh, at alternating current 5 to 12.
    """
    if outlet.direct_current:
        peak_w, knee = rng.uniform(0.7, 1.0) * outlet.power_w, 0.6
        target, mean = rng.uniform(0.75, 0.85), 0.8
    else:
        peak_w, knee = min(outlet.power_w, rng.choice((11_040.0, 22_080.0))), 0.92
        target, mean = rng.uniform(0.9, 0.98), 0.95
    wanted_wh = mean * peak_w * rng.uniform(30, 45) / 60
    battery_wh = max(rng.uniform(50_000, 85_000), wanted_wh / 0.65)
    return Car(
        battery_wh=battery_wh,
        peak_w=peak_w,
        knee_soc=knee,
        soc=target - wanted_wh / battery_wh,
        target_soc=target,
    )


@attrs.define(kw_only=True)
class Meter:
    """The lifetime register of one connector, and the power that makes it rise.

    register_wh: only rises.
    at: the time up to which the register is right, seconds of a monotonic clock.
    limit_w: the charging profile's limit of the measured power, None without one.
    """

    outlet: Outlet
    speed: float
    register_wh: float
    at: float
    car: Car | None = None
    closed: bool = False
    limit_w: float | None = None

    @property
    def _power_factor(self) -> float:
        """The measured power over the car's own."""
        max_w = _MAX_DC_W if self.outlet.direct_current else _MAX_AC_W
        return max(1.0, min(self.speed, max_w / self.outlet.power_w))

    @property
    def power_w(self) -> float:
        """The power that flows now, as the meter measures it."""
        if self.car is None or not self.closed:
            return 0.0
        power = min(self.car.demand_w(), self.outlet.power_w) * self._power_factor
        return power if self.limit_w is None else min(power, self.limit_w)

    def advance(self, to: float) -> None:
        """Let the time pass until `to`."""
        while self.at < to:
            seconds = min(to - self.at, _STEP_S / self.speed)
            if self.at + seconds == self.at:  # below the clock's resolution
                break
            power = self.power_w
            self.register_wh += power * seconds / 3600
            if self.car is not None and power:
                taken_wh = power / self._power_factor * self.speed * seconds / 3600
                self.car.soc = min(
                    self.car.target_soc, self.car.soc + taken_wh / self.car.battery_wh
                )
                if self.car.target_soc - self.car.soc < 1e-6:
                    self.car.soc = self.car.target_soc
            self.at += seconds
            if not power:
                self.at = to

    def seconds_to_full(self) -> float | None:
        """The car is full after this time at the earliest; None while no power flows."""
        if self.car is None or not self.power_w:
            return None
        missing_wh = (self.car.target_soc - self.car.soc) * self.car.battery_wh
        return missing_wh / (self.power_w / self._power_factor * self.speed) * 3600

    def sampled_values(self, measurands: list[str], context: str) -> list[dict[str, str]]:
        """SampledValues (OCPP 1.6 §7.43) of those measurands that this meter has."""
        values: list[dict[str, str]] = []

        def add(measurand: str, value: float, unit: str, digits: int, phase: str = "") -> None:
            sampled = {"value": f"{value:.{digits}f}", "context": context, "measurand": measurand}
            if phase:
                sampled["phase"] = phase
            values.append(
                sampled | {"location": "EV" if measurand == "SoC" else "Outlet", "unit": unit}
            )

        phases = [] if self.outlet.direct_current else range(1, self.outlet.phases + 1)
        amperes = self.power_w / self.outlet.voltage_v / self.outlet.phases
        for measurand in measurands:
            match measurand:
                case "Energy.Active.Import.Register":
                    add(measurand, int(self.register_wh), "Wh", 0)
                case "Power.Active.Import":
                    add(measurand, self.power_w, "W", 0)
                case "Current.Import" if phases:
                    for n in phases:
                        add(measurand, amperes, "A", 1, f"L{n}")
                case "Current.Import":
                    add(measurand, amperes, "A", 1)
                case "Voltage" if phases:
                    for n in phases:  # the voltage drops a little under load
                        add(measurand, self.outlet.voltage_v - amperes / 20, "V", 1, f"L{n}-N")
                case "Voltage":
                    add(measurand, self.outlet.voltage_v, "V", 1)
                case "SoC" if self.outlet.direct_current and self.car is not None:
                    add(measurand, self.car.soc * 100, "Percent", 0)
        return values
