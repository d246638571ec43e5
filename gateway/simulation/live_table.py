"""The values that ThingsBoard received, as a table of connectors, and receipts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
from rich.table import Table
from rich.text import Text

_COLOURS = {
    "Available": "green",
    "Preparing": "cyan",
    "Charging": "bold yellow",
    "SuspendedEV": "magenta",
    "SuspendedEVSE": "magenta",
    "Finishing": "cyan",
    "Faulted": "bold red",
    "Unavailable": "red",
}


@attrs.define
class LiveTable:
    """Owns: the newest value of every key of every connector, and the receipts, by id."""

    _connectors: dict[str, dict[str, Any]] = attrs.field(factory=dict)
    _receipts: dict[str, dict[str, Any]] = attrs.field(factory=dict)

    @property
    def receipts(self) -> list[dict[str, Any]]:
        """One for each session, its newest version, in the order of their arrival."""
        return list(self._receipts.values())

    def add_row(self, device: str, ts: int, values: Mapping[str, Any]) -> list[str]:
        """Store a row; returns a line for each change that it brought."""
        if "/" not in device:
            return []
        known = self._connectors.setdefault(device, {})
        lines = []
        if "status" in values and values["status"] != known.get("status"):
            lines.append(f"{device}: {values['status']}")
        if values.get("tx_active") is True and known.get("tx_active") is not True:
            known.pop("cost_total", None)
            known.pop("tx_energy_wh", None)
            known.pop("soc_percent", None)
        known.update(values)
        receipt = values.get("receipt")
        if isinstance(receipt, dict):
            receipt_id = str(receipt.get("receipt_id"))
            if receipt_id not in self._receipts:
                lines.append(f"{device}: {_summary(receipt)}")
            self._receipts[receipt_id] = receipt
        return lines

    def table(self) -> Table:
        """The connectors as they are now."""
        table = Table(title="What ThingsBoard receives", title_justify="left")
        table.add_column("Connector", min_width=10)
        table.add_column("Status", min_width=13)
        for header, width in (("Power", 9), ("Energy", 9), ("Cost", 9), ("SoC", 5)):
            table.add_column(header, justify="right", min_width=width)
        table.add_column("Id tag", min_width=12)
        table.add_column("For", justify="right", min_width=6)
        for name in sorted(self._connectors):
            table.add_row(*_cells(name, self._connectors[name]))
        return table


def receipt_table(receipt: Mapping[str, Any]) -> Table:
    """A receipt as a table: a row for each component of the tariff, the totals below."""
    currency = str(receipt.get("currency", ""))
    table = Table(
        title=_title(receipt), title_justify="left", caption=_caption(receipt), show_footer=True
    )
    table.add_column("Item", "Total", min_width=12)
    table.add_column("Quantity", justify="right")
    table.add_column("Price", justify="right")
    table.add_column("VAT", justify="right")
    table.add_column(f"{currency} excl.", str(receipt.get("total_excl_vat", "")), justify="right")
    table.add_column(f"{currency} incl.", str(receipt.get("total_incl_vat", "")), justify="right")
    for line in receipt.get("lines") or ():
        table.add_row(
            str(line.get("dimension", "")),
            _quantity(line),
            "" if line.get("unit_price") is None else f"{line['unit_price']} /{line.get('unit')}",
            f"{line['vat']} %" if line.get("vat") is not None else "",
            str(line.get("cost_excl_vat", "")),
            str(line.get("cost_incl_vat", "")),
        )
    return table


def _quantity(line: Mapping[str, Any]) -> str:
    quantity, unit = line.get("billed_quantity", line.get("quantity", "")), line.get("unit")
    if unit != "h":
        return f"{quantity} {unit or ''}".strip()
    seconds = float(quantity) * 3600  # the hours of a demo are too short to read
    return f"{seconds:.0f} s" if seconds < 60 else f"{_clock(seconds)} min"


def _title(receipt: Mapping[str, Any]) -> str:
    connector = f"{receipt.get('charge_point')}/{receipt.get('connector')}"
    return f"{connector}, session {receipt.get('transaction_id')}, tag {receipt.get('id_tag')}"


def _caption(receipt: Mapping[str, Any]) -> str:
    flags = ", ".join(map(str, receipt.get("flags") or ())) or "none"
    parts = [
        f"{_kwh(receipt.get('energy_wh'))} in {_clock(receipt.get('duration_s'))}",
        f"ended by {receipt.get('stop_reason')}",
        f"flags: {flags}",
    ]
    return "; ".join(parts)


def _summary(receipt: Mapping[str, Any]) -> str:
    total = f"{receipt.get('total_incl_vat', '?')} {receipt.get('currency', '')}".strip()
    return f"session {receipt.get('transaction_id')}: {_kwh(receipt.get('energy_wh'))}, {total}"


def _cells(name: str, values: Mapping[str, Any]) -> list[str | Text]:
    status = str(values.get("status", ""))
    active = values.get("tx_active") is True
    power, cost, soc = values.get("power_w"), values.get("cost_total"), values.get("soc_percent")
    info = values.get("tx_info")
    return [
        name,
        Text(status, style=_COLOURS.get(status, "")),
        "" if power is None else f"{power / 1000:.1f} kW",
        "" if values.get("tx_energy_wh") is None else _kwh(values["tx_energy_wh"]),
        "" if cost is None else f"{cost:.2f} {values.get('currency', '')}",
        "" if soc is None or not active else f"{soc:.0f} %",
        str(info.get("id_tag", "")) if active and isinstance(info, dict) else "",
        _clock(values.get("tx_duration_s")) if active else "",
    ]


def _kwh(energy_wh: Any) -> str:
    try:
        return f"{float(energy_wh) / 1000:.2f} kWh"
    except (TypeError, ValueError):
        return "? kWh"


def _clock(seconds: Any) -> str:
    try:
        minutes, rest = divmod(int(float(seconds)), 60)
    except (TypeError, ValueError):
        return ""
    return f"{minutes}:{rest:02}"
