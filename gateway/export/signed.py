"""A session's signed meter values as a file that drivers verify with the S.A.F.E.
Transparenzsoftware (SAFE-eV/transparenzsoftware, XML_Format.md).

The gateway hands them on as they came; it verifies nothing itself.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from .signed_records import Record, records

_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, 2.2


def transparency_xml(receipt: Mapping[str, Any], *, public_key: str | None = None) -> str | None:
    """The session's signed values as an XML file, for drivers to verify them.

    None where nothing is signed.
    """
    found = records(receipt, public_key=public_key)
    if not found:
        return None
    values = "".join(_value(receipt["transaction_id"], record) for record in found)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<values>\n{values}</values>\n'


def _value(transaction_id: int, record: Record) -> str:
    encoding, text = record.encoding, record.text
    if _ILLEGAL.search(text):
        encoding, text = "base64", base64.b64encode(record.octets).decode()
    key = record.key
    about = f"format={quoteattr(record.format)} encoding={quoteattr(encoding)}"
    lines = [
        f'  <value transactionId="{int(transaction_id)}" context={quoteattr(_legal(record))}>',
        # no blank may come between the tags and the data
        f"    <signedData {about}>{_escaped(text)}</signedData>",
    ]
    if key is not None:
        lines.append(f'    <publicKey encoding="{key.encoding}">{_escaped(key.text)}</publicKey>')
    return "\n".join([*lines, "  </value>\n"])


def _legal(record: Record) -> str:
    return _ILLEGAL.sub("?", record.context)


def _escaped(text: str) -> str:
    return escape(text, {"\r": "&#13;"})  # else a parser reads it as \n
