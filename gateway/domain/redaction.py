"""What may be shown: text without secrets and without control characters, and not too long.

Secrets are known by the names that stand beside them: a configuration key or a field called
AuthorizationKey, password, token and their like (OCPP 1.6 security whitepaper §2.2).
"""

from __future__ import annotations

import json
import re
from typing import Any

REDACTED = "***"
LONGEST_TEXT = 255
"""Characters of one text of a charge point that are published: OCPP 1.6 allows no more
anywhere but in data, and the longest rows made of such texts fit a message."""

_NAME = (
    r"authori[sz]ation[ _-]?key|pass(?:word|wd|phrase|code)|pwd|secret|token|psk|credential"
    r"|(?:api|private|access|basic|wifi|wpa|shared|security)[ _-]?(?:auth|key)"
)
_HINTS = ("auth", "pass", "pwd", "secret", "token", "psk", "credential", "key", "cookie", "basic",
          "bearer", "://", "\\u00")  # fmt: skip
_EXACTLY = frozenset({"authorization", "proxy-authorization", "cookie", "set-cookie", "auth"})
_named = re.compile(_NAME, re.IGNORECASE)
_beside = re.compile(
    rf"((?:{_NAME})[\w.-]*[\"'\\]*\s*[:=]\s*[\"'\\]*)([^\s\"'\\,;&}}]+)", re.IGNORECASE
)
_scheme = re.compile(r"\b(basic|bearer)\s+[\w+/=.~-]{6,}", re.IGNORECASE)
_in_url = re.compile(r"(\b[a-z][a-z0-9+.-]{0,20}://[^\s/@:\"]{0,200}):[^\s/@\"]+@", re.IGNORECASE)
_pem = re.compile(r"(-----BEGIN [A-Z ]*PRIVATE KEY-----).*?(-----END|\Z)", re.DOTALL)
_doubtful = re.compile(
    rf"{_NAME}|authorization|cookie|\bauth\b|\bbasic\b|\bbearer\b|\\u00|://[^/\s]*@", re.IGNORECASE
)


def printable(text: str) -> str:
    """Text in one line that no terminal obeys: what cannot be printed is shown by its number."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def shortened(text: str) -> str:
    """Text that is cut where it is longer than any should be; the journal has it whole."""
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"


def is_secret(name: str) -> bool:
    """Whether the value of this name must not be shown."""
    return name.lower() in _EXACTLY or _named.search(name) is not None


def without_secrets(text: str) -> str:
    """Text in which what looks like a secret is hidden: `password=...`, `ftp://user:...@host`."""
    if not _hints_at_secrets(text):
        return text
    text = _beside.sub(rf"\1{REDACTED}", text)
    text = _scheme.sub(rf"\1 {REDACTED}", text)
    text = _in_url.sub(rf"\1:{REDACTED}@", text)
    return _pem.sub(rf"\1{REDACTED}\2", text)


def frame_without_secrets(text: str) -> str:
    """A message of JSON as it came, but for its secrets.

    A frame in which there may be one is read and written again.  One that cannot be read and
    names a secret is shown up to that name: where the secret would end is not known.
    """
    if not _hints_at_secrets(text):
        return text
    try:
        read = json.loads(text, object_pairs_hook=_Object)
        return json.dumps(value_without_secrets(read), separators=(",", ":"))
    except (ValueError, RecursionError):
        found = _doubtful.search(text)
        return text[: found.end()] + REDACTED if found else text


def _hints_at_secrets(text: str) -> bool:
    lowered = text.lower()
    return any(hint in lowered for hint in _HINTS)


class _Object(list[tuple[str, Any]]):
    """An object as its pairs: a key that stands there twice may hide a secret from a dict."""


def value_without_secrets(value: Any) -> Any:
    """JSON as it was read, but for its secrets."""
    match value:
        case _Object():
            return _masked(value)
        case dict():
            return _masked(list(value.items()))
        case list():
            return [value_without_secrets(item) for item in value]
        case str():
            return without_secrets(value)
    return value


def _masked(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # ChangeConfiguration and KeyValue: {"key": "AuthorizationKey", "value": "..."}
    keyed = any(
        name.lower() == "key" and isinstance(value, str) and is_secret(value)
        for name, value in pairs
    )
    return {
        name: REDACTED
        if value is not None and (is_secret(name) or (keyed and name.lower() == "value"))
        else value_without_secrets(value)
        for name, value in pairs
    }
