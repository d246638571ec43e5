"""Authentication: a charge point's id and password, as its handshake gives them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

import argon2
import trio

_IDENTITY = re.compile(r"(?! )[A-Za-z0-9 _.:@*=-]{1,48}(?<! )")
_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/]*")  # RFC 9112 section 3.2.2
_OCPP = ["ocpp"]
ADDRESS = "ws://HOST:PORT/ocpp/<charge point id>"
NO_ID = (
    f"no charge point id in this address: connect to {ADDRESS};"
    " an id has 1 to 48 of A-Z a-z 0-9 blank _ . : @ * = -"
)
_MAX_HASHING = 2  # argon2 wants 64 MiB and a core each


def identity_of(path: str) -> str | None:
    """The charge point id of a request's path (OCPP-J 3.1.1); None where there is none.

    The last segment that is not empty, percent-decoded; the query does not count.  Where a base
    URL ends in "/" and a charge point adds "/ID", or somebody typed a slash too many, the rest is
    empty segments.  `/ocpp` alone, in whatever case, is the address that README gives, without an
    id: charge points that lost theirs must not all be one of the name `ocpp`.

    Nothing beyond `A-Z a-z 0-9 blank _ . : @ * = -` and 48 characters: an id becomes part of
    device names, log lines and receipts.  No blank at either end: ThingsBoard takes no blank
    name (thingsboard-contract section 5).  No dots alone: they climb in a path.
    """
    path = _ABSOLUTE.sub("", path.partition("?")[0], count=1)
    if not path.startswith("/"):
        return None
    try:
        names = [unquote_to_bytes(part).decode("ascii") for part in path.split("/") if part]
    except (UnicodeDecodeError, UnicodeEncodeError):
        return None
    if not names or any(name in (".", "..") for name in names):
        return None
    if [name.lower() for name in names] == _OCPP:
        return None
    return names[-1] if _IDENTITY.fullmatch(names[-1]) else None


def password_of(authorization: bytes | None, identity: str) -> bytes | None:
    """The password of a Basic header whose user is the charge point; None where it has none.

    The user name ends where the identity does, not at the first colon: identities may have some.
    """
    scheme, _, encoded = (authorization or b"").partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        decoded = base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        return None
    user = identity.encode() + b":"
    return decoded[len(user) :] if decoded.startswith(user) else None


class PasswordVerifier:
    """Checks passwords against argon2 hashes, and remembers those that were right.

    hashes: charge point id -> argon2 hash; a charge point that is not in it needs no password.
    """

    def __init__(self, hashes: Mapping[str, str]) -> None:
        self._hashes = hashes
        self._hasher = argon2.PasswordHasher()
        self._limiter = trio.CapacityLimiter(_MAX_HASHING)
        # A fleet that reconnects must not wait for thousands of slow hashes: what was right
        # once is known again by a keyed digest that is worth nothing outside this process.
        self._key = secrets.token_bytes(32)
        self._known_right: dict[str, bytes] = {}

    def is_required_for(self, identity: str) -> bool:
        return identity in self._hashes

    async def is_right(self, identity: str, password: bytes | None) -> bool:
        """Whether the password is the charge point's."""
        if password is None:
            return False
        digest = hmac.new(self._key, identity.encode() + b"\0" + password, hashlib.sha256).digest()
        if hmac.compare_digest(self._known_right.get(identity, b""), digest):
            return True
        if await trio.to_thread.run_sync(
            self._verify, self._hashes[identity], password, limiter=self._limiter
        ):
            self._known_right[identity] = digest
            return True
        return False

    def _verify(self, stored: str, password: bytes) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
            return False


def hash_password(password: str) -> str:
    """The argon2 hash that a configuration holds in place of a password."""
    return argon2.PasswordHasher().hash(password)
