"""What a tariff puts a price on (OCPI 2.2.1, TariffDimensionType), and in which units."""

from __future__ import annotations

from ..domain.fixed_point import HOUR, KWH, SECOND, WH

FREE = "FREE"  # no dimension of OCPI: time that is not priced at all
PAUSED = "PAUSED"  # none of OCPI's either: TIME that no meter reading makes idle

ENERGY, TIME, PARKING_TIME, FLAT = "ENERGY", "TIME", "PARKING_TIME", "FLAT"
DIMENSIONS = (FLAT, ENERGY, TIME, PARKING_TIME)
UNITS = {FLAT: "session", ENERGY: "kWh", TIME: "h", PARKING_TIME: "h"}
SIZES = {FLAT: 1, ENERGY: KWH, TIME: HOUR, PARKING_TIME: HOUR}  # of that unit
STEPS = {FLAT: 0, ENERGY: WH, TIME: SECOND, PARKING_TIME: SECOND}  # a step_size of 1

DAY = 24 * HOUR
