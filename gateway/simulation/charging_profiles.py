"""Charging profiles of a simulated charge point (OCPP 1.6 chapters 3.13 and 5.16)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import attrs

from .car import Outlet
from .ocpp_connection import Payload, RequestError
from .payload_fields import read_time

_PURPOSES = ("ChargePointMaxProfile", "TxDefaultProfile", "TxProfile")
_CYCLE = {"Daily": timedelta(days=1), "Weekly": timedelta(weeks=1)}


@attrs.frozen(kw_only=True)
class _Profile:
    connector_id: int
    profile_id: int
    stack_level: int
    purpose: str
    kind: str
    cycle: timedelta | None
    valid_from: datetime | None
    valid_to: datetime | None
    starts_at: datetime | None
    duration: float | None
    unit: str
    periods: tuple[tuple[float, float], ...]  # seconds since the schedule's start, limit

    def offset(self, at: datetime, tx_started: datetime | None) -> float | None:
        """Seconds into the schedule at this time; None where it does not apply."""
        if (self.valid_from and at < self.valid_from) or (self.valid_to and at >= self.valid_to):
            return None
        start = tx_started if self.kind == "Relative" else self.starts_at or tx_started
        if start is None or at < start:
            return None
        passed = at - start
        seconds = (passed % self.cycle if self.cycle else passed).total_seconds()
        return None if self.duration is not None and seconds >= self.duration else seconds

    def limit_w(self, seconds: float, outlet: Outlet) -> float | None:
        limit = None
        for start, value in self.periods:
            if start <= seconds:
                limit = value
        if limit is None or self.unit == "W":
            return limit
        return limit * outlet.voltage_v * outlet.phases


class Profiles:
    """Owns: the installed profiles, by connector, purpose and stack level."""

    def __init__(self) -> None:
        self._installed: list[_Profile] = []

    def install(self, connector_id: int, profile: Any) -> None:
        """Install one `csChargingProfiles`; raises RequestError where it cannot be read."""
        new = _read(connector_id, profile)
        self._installed = [
            old
            for old in self._installed
            if old.profile_id != new.profile_id
            and (old.connector_id, old.purpose, old.stack_level)
            != (new.connector_id, new.purpose, new.stack_level)
        ]
        self._installed.append(new)

    def clear(
        self,
        profile_id: int | None = None,
        connector_id: int | None = None,
        purpose: str | None = None,
        stack_level: int | None = None,
    ) -> bool:
        """Remove the profiles that match all criteria given; returns whether there was one.

        With an id the other criteria do not count (§5.5).
        """

        def fits(p: _Profile) -> bool:
            if profile_id is not None:
                return p.profile_id == profile_id
            return (
                connector_id in (None, p.connector_id)
                and purpose in (None, p.purpose)
                and stack_level in (None, p.stack_level)
            )

        kept = [p for p in self._installed if not fits(p)]
        removed = len(kept) < len(self._installed)
        self._installed = kept
        return removed

    def limit_w(
        self, connector_id: int, outlet: Outlet, at: datetime, tx_started: datetime | None
    ) -> float | None:
        """The power allowed on that connector at that time; None without a limit.

        A TxProfile replaces the TxDefaultProfile; the ChargePointMaxProfile
        limits both (§3.13.1).
        """
        found: dict[str, float] = {}
        for profile in sorted(self._installed, key=lambda p: (p.connector_id > 0, p.stack_level)):
            if profile.connector_id not in (0, connector_id):
                continue
            seconds = profile.offset(at, tx_started)
            limit = None if seconds is None else profile.limit_w(seconds, outlet)
            if limit is not None:
                found[profile.purpose] = limit
        if "TxProfile" in found:
            found.pop("TxDefaultProfile", None)
        return min(found.values(), default=None)

    def composite(
        self, connector_id: int, outlet: Outlet, at: datetime, seconds: int, unit: str
    ) -> Payload:
        """The chargingSchedule of GetCompositeSchedule.conf (§5.7), exact to the second."""
        edges = {0}
        for profile in self._installed:
            for start in (profile.starts_at, profile.valid_from, profile.valid_to, at):
                for offset, _ in (*profile.periods, (profile.duration or 0.0, 0.0)):
                    edge = ((start or at) - at).total_seconds() + offset
                    while profile.cycle and edge < 0:
                        edge += profile.cycle.total_seconds()
                    if 0 <= edge < seconds:
                        edges.add(int(edge))
        per_unit = 1.0 if unit == "W" else outlet.voltage_v * outlet.phases
        periods: list[Payload] = []
        for edge in sorted(edges):
            limit = self.limit_w(connector_id, outlet, at + timedelta(seconds=edge), at)
            shown = round((outlet.power_w if limit is None else limit) / per_unit, 1)
            if not periods or periods[-1]["limit"] != shown:
                periods.append({"startPeriod": edge, "limit": shown})
        return {"duration": seconds, "chargingRateUnit": unit, "chargingSchedulePeriod": periods}


def _read(connector_id: int, profile: Any) -> _Profile:
    try:
        schedule = profile["chargingSchedule"]
        purpose = str(profile["chargingProfilePurpose"])
        if purpose not in _PURPOSES or schedule["chargingRateUnit"] not in ("A", "W"):
            raise RequestError("PropertyConstraintViolation", "unknown purpose or unit")
        kind = str(profile["chargingProfileKind"])
        periods = [
            (float(p["startPeriod"]), float(p["limit"])) for p in schedule["chargingSchedulePeriod"]
        ]
        duration = schedule.get("duration")
        return _Profile(
            connector_id=connector_id,
            profile_id=int(profile["chargingProfileId"]),
            stack_level=int(profile["stackLevel"]),
            purpose=purpose,
            kind=kind,
            cycle=_CYCLE.get(profile.get("recurrencyKind", "Daily"))
            if kind == "Recurring"
            else None,
            valid_from=_time(profile.get("validFrom")),
            valid_to=_time(profile.get("validTo")),
            starts_at=_time(schedule.get("startSchedule")),
            duration=None if duration is None else float(duration),
            unit=schedule["chargingRateUnit"],
            periods=tuple(sorted(periods)),
        )
    except KeyError as exc:
        raise RequestError("OccurenceConstraintViolation", f"{exc.args[0]} is missing") from exc
    except (TypeError, ValueError, AttributeError, OverflowError) as exc:
        raise RequestError("TypeConstraintViolation", f"csChargingProfiles: {exc}") from exc


def _time(text: Any) -> datetime | None:
    return None if text is None else read_time(text)
