"""What a receiver of a CDR can check: OCPI's own table, and that it adds up."""

from __future__ import annotations

from decimal import Decimal

from .fields import faults

PARTS = ("total_fixed_cost", "total_energy_cost", "total_time_cost", "total_parking_cost")
STEP = Decimal("0.0001")
MINOR = {"EUR": Decimal("0.01"), "JPY": Decimal(1), "KWD": Decimal("0.001")}


def valid(found):
    assert list(faults("CDR", found)) == []
    return found


def volume(found, kind):
    return sum(
        dimension["volume"]
        for period in found["charging_periods"]
        for dimension in period["dimensions"]
        if dimension["type"] == kind
    )


def adds_up(found, of):
    """All that a receiver can check by adding."""
    assert volume(found, "ENERGY") == found["total_energy"]
    assert found.get("total_parking_time") != 0
    parking = found.get("total_parking_time", 0)
    assert volume(found, "PARKING_TIME") == parking
    charging = found["total_time"] - parking
    assert volume(found, "TIME") <= charging + Decimal("0.0001")
    if of["charging_s"] + of["idle_s"] >= of["duration_s"]:
        assert abs(volume(found, "TIME") - charging) <= (0 if volume(found, "TIME") else STEP)
    volumes = [d["volume"] for p in found["charging_periods"] for d in p["dimensions"]]
    assert all(v >= 0 for v in volumes)
    starts = [period["start_date_time"] for period in found["charging_periods"]]
    assert starts == sorted(starts)
    assert found["start_date_time"] <= starts[0] <= starts[-1] <= found["end_date_time"]
    for side in ("excl", "incl"):
        parts = {name: found[name][f"{side}_vat"] for name in PARTS if name in found}
        assert sum(parts.values()) == found["total_cost"][f"{side}_vat"]
        assert all(part >= 0 for part in parts.values())
        if any(line["dimension"] == "ADJUSTMENT" for line in of["lines"]):
            continue  # what the tariff's limits add or take off is in the parts, too
        for kind, name in zip(("FLAT", "ENERGY", "TIME", "PARKING_TIME"), PARTS, strict=True):
            mine = [line for line in of["lines"] if line["dimension"] == kind]
            exact = sum(Decimal(line[f"cost_{side}_vat"]) for line in mine)
            rounding = MINOR[found["currency"]] / 2 + len(mine) * STEP
            assert abs(parts.get(name, 0) - exact) <= rounding
    assert found["total_cost"]["excl_vat"] == Decimal(of["total_excl_vat"])
    assert found["total_cost"]["incl_vat"] == Decimal(of["total_incl_vat"])
    energy = Decimal(of["energy_wh"]) / 1000
    assert abs(found["total_energy"] - energy) <= Decimal("0.00005")
    assert abs(found["total_time"] * 3600 - of["duration_s"]) <= 2
