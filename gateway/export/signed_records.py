"""What is signed in a session's signed meter values, and in which format.

Charge points wrap the same few formats in many ways: bare, in hex or base64, in JSON (the Open
Charge Alliance's application note), in XML.  The wrapping is taken off, what is signed stays
byte for byte; nothing is verified.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from xml.etree import ElementTree

import attrs

UNKNOWN = "UNKNOWN"
FORMATS = frozenset(
    {"OCMF", "PCDF", "ISA_EDL_40_P", "ALFEN", "EDL_40_P", "EDL_40_SIG", "EDL_40_MENNEKES", UNKNOWN}
)
_NAMED = {  # as charge points write encodingMethod, letters and digits only
    **{re.sub("[^A-Z0-9]", "", name): name for name in FORMATS},
    "ALFENEICHRECHT": "ALFEN",
    "EDL": "EDL_40_P",
    "EDL40": "EDL_40_P",
    "EDL40EMOBILITYEXTENSION": "EDL_40_P",
    "SML": "EDL_40_P",
    "ISAEDL40": "ISA_EDL_40_P",
}
_SML = b"\x1b\x1b\x1b\x1b"  # the escape sequence that an SML file begins with
_ISA = b"\x09\x01ISA"  # a server id of ISA's meters
_HEX_KEY = "oca:base16:asn1:"
_LEAST_ENCODED = 24  # characters; shorter ones may be words


@attrs.frozen
class PublicKey:
    """A public key.  encoding: hex, base64 or base32."""

    encoding: str
    text: str

    @property
    def octets(self) -> bytes:
        return _octets(self.encoding, self.text)


@attrs.frozen(kw_only=True)
class Record:
    """One signed data set.

    format: a name that the transparency software knows, UNKNOWN among them.
    encoding: plain, hex, base64 or base32, of `text`.  key: None where none came with it.
    """

    format: str
    encoding: str
    text: str
    key: PublicKey | None = None
    context: str = "Sample.Periodic"

    @property
    def octets(self) -> bytes:
        """What is signed."""
        return _octets(self.encoding, self.text)


def records(receipt: Mapping[str, Any], *, public_key: str | None = None) -> list[Record]:
    """All signed data sets of the session, in the order in which they came.

    public_key: the meter's, known out of band; hex or base64.  One that came with the values is
        preferred; where only some came with the session's only key, it is that of the others.
    """
    found = []
    for signed in receipt["signed"]:
        context = signed["context"] or "Sample.Periodic"  # OCPP 1.6 7.43
        for record in _opened(signed["value"]):
            own = record.context if record.context.startswith("Transaction.") else context
            found.append(attrs.evolve(record, context=own))
    keys = {record.key for record in found if record.key is not None}
    common = keys.pop() if len(keys) == 1 else None if keys else _key(public_key)
    return [
        record if record.key is not None else attrs.evolve(record, key=common) for record in found
    ]


# --- unwrapping ---------------------------------------------------------------------------------


def _opened(value: str) -> Iterator[Record]:
    kind = value.lstrip()[:1]
    if kind == "{":
        wrapper = _wrapper(value)
        if wrapper is not None:
            data, method, key = wrapper
            yield from (
                record if record.key is not None else attrs.evolve(record, key=key)
                for record in _unwrapped(data, method, 1)
            )
            return
    yield from _unwrapped(value)


def _wrapper(value: str) -> tuple[str, str, PublicKey | None] | None:
    """Data, method and key of the application note's JSON; be.ENERGISED spells it otherwise."""
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return None
    data = found.get("signedMeterData") or found.get("signedMeterValue")
    if not isinstance(data, str):
        return None
    return data, str(found.get("encodingMethod") or ""), _key(found.get("publicKey"))


def _unwrapped(text: str, method: str = "", least: int = _LEAST_ENCODED) -> Iterator[Record]:
    """method: what the charge point calls the format, perhaps nothing.

    least: characters that are taken for hex or base64.
    """
    plain = _texts(text)
    if plain:
        yield from plain
        return
    named = _NAMED.get(re.sub("[^A-Z0-9]", "", method.upper()), UNKNOWN)
    for encoding in ("hex", "base64"):
        octets = _decoded(encoding, text) if len(text) >= least else None
        if octets is None:
            continue
        inner = _texts(_as_text(octets))
        if inner:
            yield from inner
        else:
            seen = _sml(octets) if named == UNKNOWN else named
            yield Record(format=seen, encoding=encoding, text=text)
        return
    yield Record(format=named, encoding="plain", text=text)


def _texts(text: str) -> list[Record]:
    """The formats that are text and say so themselves; none: it is something else."""
    begin = text.lstrip()
    if begin.startswith("OCMF|"):
        return [Record(format="OCMF", encoding="plain", text=text)]
    if begin.startswith("AP;"):
        fields = begin.split(";")
        key = fields[3] if len(fields) > 3 and _decoded("base32", fields[3]) else None
        held = None if key is None else PublicKey("base32", key)
        return [Record(format="ALFEN", encoding="plain", text=text, key=held)]
    if begin.startswith("<"):
        return list(_xml(text))
    return []


def _xml(text: str) -> Iterator[Record]:
    whole = Record(format=UNKNOWN, encoding="plain", text=text)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:  # entities may grow without bound
        yield whole
        return
    try:
        root = ElementTree.fromstring(text.strip())  # noqa: S314  it declares no entities
    except (ElementTree.ParseError, ValueError):
        yield whole
        return
    kind = root.tag.rpartition("}")[2]
    values = [root] if kind == "value" else list(root) if kind == "values" else []
    found = [record for value in values for record in _value_records(value)]
    if values and len(found) == len(values):
        yield from found
    elif kind == "signedMeterValue":
        yield attrs.evolve(whole, format="EDL_40_SIG")
    else:
        yield whole


def _value_records(value: ElementTree.Element) -> Iterator[Record]:
    """One, or none where the element holds no signed data."""
    held = {child.tag.rpartition("}")[2]: child for child in value}
    data = held.get("signedData")
    if data is None or not (data.text or "").strip():
        return
    text = data.text or ""
    seen = next(_unwrapped(text.strip()))
    named = _NAMED.get(re.sub("[^A-Z0-9]", "", data.get("format", "").upper()), UNKNOWN)
    encoding = data.get("encoding", "").strip().lower()
    key = held.get("publicKey")
    yield Record(
        format=seen.format if named == UNKNOWN else named,
        encoding=encoding if encoding in ("plain", *_DECODE) else seen.encoding,
        text=text,
        key=seen.key if key is None else _key(key.text, key.get("encoding", "")),
        context=value.get("context") or "",
    )


def _key(text: object, encoding: str = "") -> PublicKey | None:
    """None where it is none, or cannot be read."""
    if not isinstance(text, str) or not text.strip():
        return None
    text = text.strip()
    encoding = encoding.strip().lower()
    if _decoded(encoding, text):
        return PublicKey(encoding, text)
    if text.lower().startswith(_HEX_KEY):
        text = text[len(_HEX_KEY) :]
    if _decoded("hex", text):
        return PublicKey("hex", text)
    octets = _decoded("base64", text)
    if not octets:
        return None
    inner = _as_text(octets)
    return _key(inner) if inner.lower().startswith(_HEX_KEY) else PublicKey("base64", text)


def _sml(octets: bytes) -> str:
    if not octets.startswith(_SML):
        return UNKNOWN
    return "ISA_EDL_40_P" if _ISA in octets else "EDL_40_P"


def _as_text(octets: bytes) -> str:
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return ""


def _octets(encoding: str, text: str) -> bytes:
    """What the text stands for; itself, where it is not encoded as it says."""
    octets = _decoded(encoding, text)
    return text.encode("utf-8", "surrogatepass") if octets is None else octets


def _decoded(encoding: str, text: str) -> bytes | None:
    """None where the text is not encoded so."""
    decode = _DECODE.get(encoding)
    try:
        return None if decode is None else decode("".join(text.split()))
    except ValueError:  # binascii.Error among them
        return None


def _base64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


_DECODE: Mapping[str, Callable[[str], bytes]] = {
    "hex": bytes.fromhex,
    "base64": _base64,
    "base32": base64.b32decode,
}
