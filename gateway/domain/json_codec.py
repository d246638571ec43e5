"""JSON as the gateway writes and reads it: a Decimal is a number with all its digits."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec

_encoder = msgspec.json.Encoder(decimal_format="number")
_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
_exact_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(float_hook=Decimal)

encode = _encoder.encode
"""A value -> UTF-8, attrs classes as objects."""


def encode_text(value: Any) -> str:
    return encode(value).decode()


decode = _decoder.decode
"""Bytes or text -> a value, numbers with a fraction as float.  Raises msgspec.DecodeError."""
decode_exact = _exact_decoder.decode
"""The same, numbers with a fraction as Decimal."""
