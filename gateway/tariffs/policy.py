"""What OCPI leaves to the operator: idle time, faults, plausibility, rounding."""

from __future__ import annotations

from decimal import Decimal

import attrs

from ..domain.fixed_point import HOUR, KWH, SECOND, WH
from .dimensions import FREE, PARKING_TIME, PAUSED, TIME

_ANY_ENERGY_WH = Decimal(10**15)


@attrs.frozen(kw_only=True)
class Policy:
    """The operator's choices.

    suspended_evse, faulted: the dimension, or FREE, of the time a charge point spends so.
    idle_detection: "status", or "power" for charge points that never report SuspendedEV.
    idle_power_w: below it a meter's interval is idle, where idle time is detected by power.
    idle_grace_s: of each idle period, free.
    post_stop_parking: idle time counts on after StopTransaction until the cable is out.
    min_billable_wh: below it a session costs nothing.
    max_power_kw, plausibility_slack_wh: more than the one over time plus the other cannot flow.
    stop_tolerance_wh: how far meterStop may lie below the last sample.
    max_session_h: a longer session is reviewed.
    """

    suspended_evse: str = TIME
    faulted: str = FREE
    idle_detection: str = "status"
    idle_power_w: Decimal = Decimal(100)
    idle_grace_s: Decimal = Decimal(0)
    post_stop_parking: bool = False
    min_billable_wh: Decimal = Decimal(0)
    max_power_kw: Decimal = Decimal(500)
    plausibility_slack_wh: Decimal = Decimal(1000)
    stop_tolerance_wh: Decimal = Decimal(1)
    max_session_h: Decimal = Decimal(72)
    rounding: str = "HALF_UP"

    # The same as whole numbers, for the work on every message.
    grace: int = attrs.field(init=False, repr=False, eq=False)
    slack: int = attrs.field(init=False, repr=False, eq=False)
    tolerance: int = attrs.field(init=False, repr=False, eq=False)
    power: int = attrs.field(init=False, repr=False, eq=False)  # nWh in an hour
    idle: int = attrs.field(init=False, repr=False, eq=False)  # nWh in an hour
    longest: int = attrs.field(init=False, repr=False, eq=False)

    @grace.default
    def _grace(self) -> int:
        return int(self.idle_grace_s * SECOND)

    @slack.default
    def _slack(self) -> int:
        return int(self.plausibility_slack_wh * WH)

    @tolerance.default
    def _tolerance(self) -> int:
        return int(self.stop_tolerance_wh * WH)

    @power.default
    def _power(self) -> int:
        return int(self.max_power_kw * KWH)

    @idle.default
    def _idle(self) -> int:
        return int(self.idle_power_w * WH)

    @longest.default
    def _longest(self) -> int:
        return int(self.max_session_h * HOUR)

    def untimed(self) -> Policy:
        """The same, where durations are not the charge point's own: nothing is against reason."""
        return attrs.evolve(self, plausibility_slack_wh=_ANY_ENERGY_WH)

    def plausible(self, nwh: int, us: int) -> bool:
        """Whether so much energy can flow in that time."""
        return (nwh - self.slack) * HOUR <= self.power * us

    def kind(self, status: str) -> str:
        """TIME, PAUSED, PARKING_TIME or FREE, by the connector's status in a transaction.

        Parking is when the vehicle asks for no energy (OCPI 2.2.1, TariffDimensionType).  No
        power while the charge point itself pauses does not mean that.
        """
        if status in ("SuspendedEV", "Finishing"):
            return PARKING_TIME
        if status == "SuspendedEVSE":
            by_power = self.idle_detection == "power"
            return PAUSED if by_power and self.suspended_evse == TIME else self.suspended_evse
        return self.faulted if status in ("Faulted", "Unavailable") else TIME

    def kind_after_stop(self, status: str) -> str:
        return self.faulted if status in ("Faulted", "Unavailable") else PARKING_TIME


POLICY_FIELDS = tuple(field.name for field in attrs.fields(Policy) if field.init)
