"""What a server's reason code means, and what an operator is to do about it.  Pure.

The numbers are those of MQTT 5 (§3.2.2.2 CONNACK, §3.14.2.1 DISCONNECT); paho translates those of
MQTT 3.1.1 into them.  When ThingsBoard sends which: thingsboard-contract C1, C3.
"""

from __future__ import annotations

from collections.abc import Mapping

NO_PUBACK = (
    "no PUBACK within {seconds:g} s: ThingsBoard hangs, or the device of this access token is not"
    ' marked as a gateway (tick "Is gateway" in its details)'
)
CONNECTION_CLOSED = "the broker closed the connection"

_NOT_KNOWN = (
    "ThingsBoard does not know this access token; compare [thingsboard] access_token with"
    ' "Manage credentials" of the gateway device'
)
_TRY_LATER = "nothing to do here: it is tried again until ThingsBoard is ready"

_CONNACK: Mapping[int, str] = {
    0x80: "the connection ended before it was answered: is this an MQTT server, and of this port?",
    0x82: "the server takes no client of this version of MQTT, or none without an id: compare"
    " [thingsboard] protocol and access_token",
    0x84: 'the server does not speak this version of MQTT: set [thingsboard] protocol = "3.1.1"'
    " if it must be, at the risk of data that is lost unseen",
    0x85: "the server does not take our client id, as ThingsBoard does not without an access"
    " token; set [thingsboard] access_token",
    0x86: _NOT_KNOWN,
    0x87: _NOT_KNOWN,
    0x88: f"the server is unavailable; {_TRY_LATER}",
    0x89: f"the server is busy; {_TRY_LATER}",
    0x8A: "the server has banned this client: ask who runs it",
    0x97: f"a quota is used up; {_TRY_LATER}, or the tenant's limits are raised",
    0x9F: f"too many connections in a short time; {_TRY_LATER}",
}

_DISCONNECT: Mapping[int, str] = {
    0x81: "the server could not read a packet of ours, or it was too large: please report it",
    0x82: "the server takes a packet of ours for a breach of the protocol: please report it",
    0x83: "the server failed at something that it was sent",
    0x87: _NOT_KNOWN,
    0x8B: f"the server shuts down; {_TRY_LATER}",
    0x8D: "nothing was received from the server for too long: it, or the way to it, hangs",
    0x8E: "the session was taken over by another client with the same access token; is a second"
    " gateway running?  Each needs a device, and a token, of its own",
    0x95: "a packet of ours was larger than the server takes: please report it",
    0x96: "the server finds our rate too high; it is tried again more slowly",
    0x97: "the server finds a rate limit or quota exceeded; it is tried again more slowly",
    0x98: "an administrator ended the session: was the access token changed, or the device"
    " deleted?",
    0xA0: "the server ends sessions of this age; it is tried again",
}


def connack_reason(code: int, name: str) -> str:
    """Why a CONNACK refused the connection.  name: the code's name in MQTT 5."""
    return _explained(_CONNACK, code, name)


def disconnect_reason(code: int, name: str) -> str:
    """Why a connection is over.  paho gives 0x80 also where the server closed it with no reason."""
    if code == 0x80:
        return CONNECTION_CLOSED
    return _explained(_DISCONNECT, code, name)


def _explained(reasons: Mapping[int, str], code: int, name: str) -> str:
    named = f"{name} (0x{code:02x})"
    return f"{named}: {reasons[code]}" if code in reasons else named
