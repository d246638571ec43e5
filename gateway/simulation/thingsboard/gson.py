"""JSON as ThingsBoard's lenient parser takes it (thingsboard-contract J1, J2).

Valid JSON goes through msgspec; the slow, lenient reader gets only what msgspec
refuses.  `parse` says so, since a product whose JSON needs a lenient reader has a fault.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec


class JsonSyntaxError(ValueError):
    """The text is not even JSON for the lenient parser."""


class Number(str):
    """A JSON number with a fraction or an exponent, as it was spelled.

    ThingsBoard decides by the spelling whether it is a long, a double or text.
    """

    __slots__ = ()


def parse(payload: bytes) -> tuple[Any, bool]:
    """Decode a payload; numbers that are not plain integers come as Number.

    The second value is False where only a lenient parser accepts the text.
    Raises JsonSyntaxError for the rest.  An empty payload is null.
    """
    try:
        return _STRICT.decode(payload), True
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    except RecursionError as exc:
        raise JsonSyntaxError("nested too deep") from exc
    text = payload.decode("utf-8", errors="replace").removeprefix("\ufeff")
    try:
        return _Lenient(text).document(), False
    except RecursionError as exc:
        raise JsonSyntaxError("nested too deep") from exc


_STRICT = msgspec.json.Decoder(float_hook=Number)

_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_BLANK = re.compile(r"(?:[ \t\r\n]+|//[^\r\n]*|#[^\r\n]*|/\*.*?\*/)*", re.DOTALL)
_BARE = re.compile(r"[^/\\;#={}\[\]:, \t\f\r\n]+")
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "\n": "\n"}


class _Lenient:
    """Gson's reader with its default leniency: bare words, single quotes, `=`, `;`, comments."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def document(self) -> Any:
        self._skip_blank()
        if self._at == len(self._text):
            return None
        value = self._value()
        # Past the document the reader is strict again: not even a comment may follow.
        if self._text[self._at :].strip(" \t\r\n"):
            raise JsonSyntaxError(f"text after the document at {self._at}")
        return value

    def _value(self) -> Any:
        self._skip_blank()
        match self._peek():
            case "{":
                return self._object()
            case "[":
                return self._array()
            case '"' | "'":
                return self._quoted()
        return _literal(self._bare())

    def _object(self) -> dict[str, Any]:
        self._at += 1
        members: dict[str, Any] = {}
        self._skip_blank()
        if self._peek() == "}":
            self._at += 1
            return members
        while True:
            self._skip_blank()
            name = self._quoted() if self._peek() in "\"'" else self._bare()
            self._skip_blank()
            self._expect(":=")
            if self._text[self._at : self._at + 1] == ">":
                self._at += 1
            members[name] = self._value()
            self._skip_blank()
            if self._expect("},;") == "}":
                return members

    def _array(self) -> list[Any]:
        self._at += 1
        items: list[Any] = []
        while True:
            self._skip_blank()
            if self._peek() in ",;]":  # an omitted element is null
                end = self._expect(",;]")
                if end == "]" and not items:
                    return items
                items.append(None)
            else:
                items.append(self._value())
                self._skip_blank()
                end = self._expect(",;]")
            if end == "]":
                return items

    def _quoted(self) -> str:
        quote, out = self._take(), []
        while (char := self._take()) != quote:
            if char != "\\":
                out.append(char)
            elif (escape := self._take()) == "u":
                digits = self._text[self._at : self._at + 4]
                if not re.fullmatch("[0-9a-fA-F]{4}", digits):
                    raise JsonSyntaxError(f"bad escape at {self._at}")
                self._at += 4
                out.append(chr(int(digits, 16)))
            else:
                out.append(_ESCAPES.get(escape, escape))
        return "".join(out)

    def _bare(self) -> str:
        if found := _BARE.match(self._text, self._at):
            self._at = found.end()
            return found[0]
        raise JsonSyntaxError(f"a value or a name expected at {self._at}")

    def _skip_blank(self) -> None:
        if found := _BLANK.match(self._text, self._at):
            self._at = found.end()

    def _peek(self) -> str:
        if self._at == len(self._text):
            raise JsonSyntaxError("end of input")
        return self._text[self._at]

    def _take(self) -> str:
        char = self._peek()
        self._at += 1
        return char

    def _expect(self, one_of: str) -> str:
        if (char := self._take()) not in one_of:
            raise JsonSyntaxError(f"one of {one_of} expected at {self._at - 1}")
        return char


def _literal(word: str) -> Any:
    literals = {"null": None, "true": True, "false": False}
    if word.lower() in literals:
        return literals[word.lower()]
    if _INTEGER.fullmatch(word) and len(word) < 4_000:
        return int(word)
    return Number(word) if _NUMBER.fullmatch(word) else word
