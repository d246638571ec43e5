"""Receipts as Charge Detail Records (OCPI 2.2.1, mod_cdrs).

What OCPI leaves open, and how it is settled here:

* `id` is the receipt's id, with a hash in place of its end where it has more than 36 characters.
  A CDR is never changed: a later version of a receipt is a CDR of its own, whose id ends in
  `-v2` and whose remark names the one that it replaces.  An operator that has sent that one
  sends its `credit` first (mod_cdrs, Credit CDRs).
* `auth_method` is WHITELIST: the gateway decides about id tags without asking an eMSP.
* `cdr_token`: the id tag, as RFID; no other contract is known than the tag itself.
* `cdr_location` and the parties come from configuration (`Party`).  OCPP 1.6 has no EVSEs: each
  connector is one.
* `total_cost` is the price that was billed, rounded once to the currency's minor unit.  Its parts
  have four decimals and add up to it: the largest takes the difference that rounding makes.  What
  a tariff's `min_price` adds does not depend on time or energy and is in `total_fixed_cost`; what
  its `max_price` takes off is taken off all parts in proportion; the remark says how much it is.
  Where no VAT applies, both amounts of a cost are the same.
* Volumes of charging periods have four decimals and add up to the totals.  Time that the operator
  does not bill (`FREE`: a fault) is in `total_time`, but in no period.  The grace of an idle spell,
  and a session that is waived, are in periods without a `tariff_id`: no tariff is relevant there.
* A session without a tariff has no currency and no costs: it is no CDR.
* Signed values that are too long for OCPI, or in another format than the first, are left out; the
  remark says how many.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import attrs

from ..billing.bill import ADJUSTMENT
from ..billing.settlement import NEEDS_REVIEW
from ..tariffs.dimensions import ENERGY, FLAT, PARKING_TIME, TIME
from .ocpi import date_time, identifier, instant_of, is_string, ocpi_number, present, price, string
from .ocpi_tariff import tariff_of
from .party import Party
from .signed_records import Record, records
from .volumes import Volumes

Receipt = Mapping[str, Any]

_COSTS = {
    FLAT: "total_fixed_cost",
    ENERGY: "total_energy_cost",
    TIME: "total_time_cost",
    PARKING_TIME: "total_parking_cost",
}
_ENCODINGS = {  # OCPI's names for them (mod_cdrs, SignedData)
    "ALFEN": "Alfen Eichrecht",
    "EDL_40_P": "EDL40 E-Mobility Extension",
    "EDL_40_MENNEKES": "EDL40 Mennekes",
}
_NATURES = {"Transaction.Begin": "Start", "Transaction.End": "End"}
_HOUR = timedelta(hours=1)
_MICROSECOND = timedelta(microseconds=1)
_NOTHING = Decimal(0)


class NoCdr(ValueError):
    """The receipt cannot be a CDR; its id is the message."""


class Unpriced(NoCdr):
    """No tariff applied to the session."""


class StillOpen(NoCdr):
    """The session has not ended."""


@attrs.frozen(kw_only=True)
class Export:
    """unpriced, still_open: ids of receipts that are no CDRs, for the operator.

    faulty: ids of those that we should have made one of, and why we could not.
    """

    cdrs: Sequence[dict[str, Any]]
    unpriced: Sequence[str]
    still_open: Sequence[str]
    faulty: Mapping[str, str] = attrs.field(factory=dict)


def export(receipts: Iterable[Receipt], *, party: Party) -> Export:
    """The CDRs of all receipts that can be one, in their order."""
    cdrs: list[dict[str, Any]] = []
    faulty: dict[str, str] = {}
    left_out: dict[type[NoCdr], list[str]] = {Unpriced: [], StillOpen: []}
    for receipt in receipts:
        try:
            cdrs.append(cdr(receipt, party=party))
        except NoCdr as exc:
            left_out[type(exc)].append(receipt["receipt_id"])
        except Exception as exc:  # noqa: BLE001  one must not hide the others
            faulty[str(receipt.get("receipt_id"))] = repr(exc)
    unpriced, still_open = left_out[Unpriced], left_out[StillOpen]
    return Export(cdrs=cdrs, unpriced=unpriced, still_open=still_open, faulty=faulty)


def of_cdr(name: str, versions: Iterable[Receipt]) -> Receipt | None:
    """The version of a receipt that the CDR of that id was made of.

    name: a CDR's id, or a receipt's, which means its first version that there is.
    versions: of any receipts, of each the older ones first.
    """
    named = None
    for receipt in versions:
        if _cdr_id(receipt, receipt["version"]) == name:
            return receipt
        if receipt["receipt_id"] == name and named is None:
            named = receipt
    return named


def cdr(receipt: Receipt, *, party: Party, public_key: str | None = None) -> dict[str, Any]:
    """The receipt as a CDR, its numbers as Decimal.

    public_key: the meter's, where signed values come without; hex or base64.
    Raises Unpriced, StillOpen.
    """
    if receipt.get("stopped_at") is None:
        raise StillOpen(receipt["receipt_id"])
    if receipt["tariff"] is None:
        raise Unpriced(receipt["receipt_id"])
    started, stopped = instant_of(receipt["started_at"]), instant_of(receipt["stopped_at"])
    tariff = tariff_of(receipt["tariff"], party, at=started)
    signed, left_out = _signed_data(records(receipt, public_key=public_key))
    duration = Decimal((stopped - started) // _MICROSECOND) / (_HOUR // _MICROSECOND)
    volumes = Volumes.of(receipt, ocpi_number(duration))
    return present(
        country_code=party.country_code,
        party_id=party.party_id,
        id=_cdr_id(receipt, receipt["version"]),
        start_date_time=date_time(started),
        end_date_time=date_time(stopped),
        session_id=identifier(receipt["receipt_id"]),
        cdr_token=_token(receipt, party),
        auth_method="WHITELIST",
        cdr_location=_location(receipt, party),
        currency=receipt["currency"],
        tariffs=[tariff],
        charging_periods=volumes.periods(receipt, tariff["id"]),
        signed_data=signed,
        total_cost=price(Decimal(receipt["total_excl_vat"]), Decimal(receipt["total_incl_vat"])),
        total_energy=sum(volumes.energy, _NOTHING),
        total_time=ocpi_number(duration),
        total_parking_time=sum(volumes.parking, _NOTHING) or None,
        **_costs(receipt),
        remark=_remark(receipt, left_out),
        last_updated=date_time(stopped),
    )


def credit(wrong: Mapping[str, Any], *, last_updated: datetime | None = None) -> dict[str, Any]:
    """The Credit CDR that takes a CDR back: the same, with negative total costs.

    last_updated: aware; None: that of the CDR.
    """
    if wrong.get("credit"):
        raise ValueError(f"{wrong['id']} is a Credit CDR itself")
    amounts = {name: _NOTHING - amount for name, amount in wrong["total_cost"].items()}
    return {
        **wrong,
        "id": f"{wrong['id']}-C",
        "total_cost": amounts,
        "credit": True,
        "credit_reference_id": wrong["id"],
        "last_updated": wrong["last_updated"] if last_updated is None else date_time(last_updated),
    }


def _cdr_id(receipt: Receipt, version: int) -> str:
    """36 characters at most: three are kept for a Credit CDR's ending."""
    name = receipt["receipt_id"]
    return identifier(name if version <= 1 else f"{name}-v{version}")


def _token(receipt: Receipt, party: Party) -> dict[str, str]:
    tag = identifier(receipt["id_tag"])
    return {
        "country_code": party.token_country_code or party.country_code,
        "party_id": party.token_party_id or party.party_id,
        "uid": tag,
        "type": "RFID",
        "contract_id": tag,
    }


def _location(receipt: Receipt, party: Party) -> dict[str, Any]:
    charge_point, connector = receipt["charge_point"], receipt["connector"]
    location = party.location_of(charge_point, connector)
    return present(
        id=location.id,
        name=location.name,
        address=location.address,
        city=location.city,
        postal_code=location.postal_code,
        state=location.state,
        country=location.country,
        coordinates={"latitude": location.latitude, "longitude": location.longitude},
        evse_uid=identifier(f"{charge_point}-{connector}"),
        evse_id=party.evse_id_of(charge_point, connector),
        connector_id=str(connector),
        connector_standard=location.connector_standard,
        connector_format=location.connector_format,
        connector_power_type=location.connector_power_type,
    )


def _costs(receipt: Receipt) -> dict[str, dict[str, Decimal]]:
    """The parts of the total cost; none for a dimension that has no line."""
    sides = [_parts(receipt, side) for side in ("excl", "incl")]
    excl, incl = sides
    fields = [field for field in _COSTS.values() if field in excl or field in incl]
    return {field: price(excl.get(field, _NOTHING), incl.get(field, _NOTHING)) for field in fields}


def _parts(receipt: Receipt, side: str) -> dict[str, Decimal]:
    """The parts of the total excluding or including VAT, to four decimals, that add up to it."""
    parts: dict[str, Decimal] = {}
    adjustment = _NOTHING
    for line in receipt["lines"]:
        cost = Decimal(line[f"cost_{side}_vat"])
        if line["dimension"] == ADJUSTMENT:
            adjustment += cost
        else:
            field = _COSTS[line["dimension"]]
            parts[field] = parts.get(field, _NOTHING) + cost
    total = Decimal(receipt[f"total_{side}_vat"])
    if adjustment > 0:  # min_price
        parts[_COSTS[FLAT]] = parts.get(_COSTS[FLAT], _NOTHING) + adjustment
    elif adjustment < 0 and (whole := sum(parts.values(), _NOTHING)):  # max_price
        parts = {field: ocpi_number(cost * total / whole) for field, cost in parts.items()}
    rest = total - sum(parts.values(), _NOTHING)
    for field in sorted(parts, key=parts.__getitem__, reverse=True):
        taken = max(rest, -parts[field])  # no part falls below zero for a rounding
        parts[field] += taken
        rest -= taken
    return parts


# --- signed values ------------------------------------------------------------------------------


def _signed_data(found: Sequence[Record]) -> tuple[dict[str, Any] | None, int]:
    """SignedData, and how many values are not in it.  One encoding holds for all of them."""
    if not found:
        return None, 0
    first = found[0].format
    values = [_signed_value(record) for record in found if record.format == first]
    fitting = [value for value in values if len(value["signed_data"]) <= 5000]
    if not fitting:
        return None, len(found)
    key = next((record.key for record in found if record.key is not None), None)
    public = None if key is None else base64.b64encode(key.octets).decode()
    data = present(
        encoding_method=_ENCODINGS.get(first, first),
        public_key=public if public and len(public) <= 512 else None,
        signed_values=fitting,
    )
    return data, len(found) - len(fitting)


def _signed_value(record: Record) -> dict[str, str]:
    return {
        "nature": _NATURES.get(record.context, "Intermediate"),
        "plain_data": _plain(record),
        "signed_data": base64.b64encode(record.octets).decode(),
    }


def _plain(record: Record) -> str:
    """What OCMF says in plain text; empty where that is too long for OCPI, or there is none."""
    if record.format != "OCMF":
        return ""
    payload = "|".join(record.octets.decode("utf-8", "replace").split("|")[1:-1])
    return payload if is_string(payload, 512) else ""


def _remark(receipt: Receipt, left_out: int) -> str | None:
    """What a person should know, the most important first."""
    version = receipt["version"]
    notes = ["needs review"] if receipt["needs_review"] else []
    if version > 1:
        notes.append(f"replaces {_cdr_id(receipt, version - 1)}")
    notes += [
        f"adjusted to the tariff's limits by {line['cost_excl_vat']} excl. VAT,"
        f" {line['cost_incl_vat']} incl. VAT"
        for line in receipt["lines"]
        if line["dimension"] == ADJUSTMENT
    ]
    if left_out:
        notes.append(f"signed values left out: {left_out}")
    if receipt["stop_reason"]:
        notes.append(f"stopped: {receipt['stop_reason']}")
    flags = [flag for flag in receipt["flags"] if flag != NEEDS_REVIEW]
    if flags:
        notes.append("flags: " + " ".join(flags))
    return string("; ".join(notes), 255) or None
