"""JavaScript cell functions, for table cells that ThingsBoard cannot show without one.

Each is needed: for a value inside a JSON value, the time of a number, a colour, or to hide values
of a session that has ended or of a charge point that is offline (ThingsBoard keeps the latest
value for ever).  A function gets `value` and, in a table of devices, `entity`: the row by the
labels of its columns, so the labels here must equal those of the columns.

ThingsBoard renders the returned text as HTML, and text without a function too.  Text of a charge
point is untrusted, so it is escaped here.
"""

from __future__ import annotations

import json

SESSION = "Session"  # the column of tx_active
CONNECTION = "Connection"  # of connected
CURRENCY = "Currency"

_ESCAPED = (
    "String({text} == null ? '' : {text})"
    ".replace(/[&<>\"']/g, function (c) {{ return '&#' + c.charCodeAt(0) + ';'; }})"
)
_STATUS_COLOURS = {
    "Available": "#2e7d32",
    "Preparing": "#00838f",
    "Charging": "#1565c0",
    "SuspendedEV": "#6a1b9a",
    "SuspendedEVSE": "#6a1b9a",
    "Finishing": "#00838f",
    "Reserved": "#ef6c00",
    "Unavailable": "#757575",
    "Faulted": "#c62828",
}
_RECEIPT = "var it = typeof value === 'string' ? JSON.parse(value || '{}') : value || {};\n"


def escaped(text: str = "value") -> str:
    """A cell function that shows the text with its HTML escaped."""
    return f"return {_ESCAPED.format(text=text)};"


TEXT = escaped()

STATUS = (
    f"var text = {_ESCAPED.format(text='value')};\n"
    f"return String(entity.{CONNECTION}) === 'false' ? text + ' (offline)' : text;"
)

STATUS_COLOUR = (
    f"var colours = {json.dumps(_STATUS_COLOURS)};\n"
    f"var gone = String(entity.{CONNECTION}) === 'false';\n"
    "return {color: gone ? '#9e9e9e' : colours[value] || '#424242', fontWeight: 600};"
)

POWER = (
    f"var unknown = value === '' || String(entity.{CONNECTION}) === 'false';\n"
    "return unknown ? '' : (value / 1000).toFixed(1);"
)

ONLINE = "return String(value) === 'true' ? 'online' : value === '' ? '' : 'offline';"

ONLINE_COLOUR = "return {color: String(value) === 'true' ? '#2e7d32' : '#c62828', fontWeight: 600};"


def _in_session(shown: str) -> str:
    return f"return String(entity.{SESSION}) === 'true' && value !== '' ? {shown} : '';"


SESSION_KWH = _in_session("(value / 1000).toFixed(2)")
SESSION_PERCENT = _in_session("value")
SESSION_MINUTES = _in_session("Math.round(value / 60)")
SESSION_SINCE = _in_session("ctx.date.transform(value, 'yyyy-MM-dd HH:mm')")
SESSION_COST = _in_session(
    f"Number(value).toLocaleString(undefined, {{style: 'currency', currency: entity.{CURRENCY}}})"
)
SESSION_TAG = (
    _RECEIPT
    + f"return String(entity.{SESSION}) === 'true' ? {_ESCAPED.format(text='it.id_tag')} : '';"
)


def of_json(field: str) -> str:
    """A text inside a JSON value."""
    return _RECEIPT + escaped(f"it.{field}")


RECEIPT_START = (
    _RECEIPT + "return it.started_at ? ctx.date.transform(it.started_at, 'yyyy-MM-dd HH:mm') : '';"
)
RECEIPT_FLAGS = _RECEIPT + escaped("(it.flags || []).join(', ')")
RECEIPT_FLAGS_COLOUR = _RECEIPT + "return it.needs_review ? {color: '#c62828'} : {};"
HARDWARE = _RECEIPT + escaped("[it.vendor, it.model].filter(Boolean).join(' ')")
