"""What the load's chargers say: the frames of the mix, as templates with the numbers filled in."""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Callable

from websockets.frames import apply_mask

# A zero mask would be legal too, but some servers skip the unmasking then: chargers' are not zero.
MASK = b"\x37\xfa\x21\x3d"
SMALL_HEADS = [b"\x81" + bytes([0x80 | n]) + MASK for n in range(126)]

CONNECTING, SHAKING, BOOTING, OPEN, CLOSED = range(5)

#: What an AC charger of 22 kW adds to its register, Wh a millisecond.
WH_PER_MS = 22_000 / 3_600_000


# --- what a charger says ----------------------------------------------------------------------


class Charger:
    """One simulated charge point; it has at most one request under way (OCPP-J 1.6 §4.1.1)."""

    __slots__ = (
        "awaited",
        "buffer",
        "due",
        "id",
        "index",
        "last_ms",
        "meter_start_ms",
        "number",
        "quota",
        "sent_at",
        "sock",
        "state",
        "step",
        "tag",
        "transaction_id",
    )

    def __init__(self, index: int, prefix: str) -> None:
        self.index = index
        self.id = f"{prefix}-{index:05d}"
        self.tag = b"TAG%05d" % index
        self.sock: socket.socket | None = None
        self.state = CONNECTING
        self.buffer = b""
        self.number = 0  # of its latest request
        self.awaited = b""  # what the answer begins with
        self.sent_at = 0.0
        self.step = 0
        self.quota = 0  # requests it may still send unasked
        self.due: deque[float] = deque()  # intended send times that it was too busy for
        self.transaction_id = b"0"
        self.last_ms = 0
        self.meter_start_ms = 0

    def now_ms(self) -> int:
        """The time, never the same twice: equal starts would be retries of each other."""
        self.last_ms = max(time.time_ns() // 1_000_000, self.last_ms + 1)
        return self.last_ms

    def register_wh(self) -> float:
        """The register: physically plausible, however fast the load runs."""
        return 10_000_000 + (self.last_ms - EPOCH_MS) * WH_PER_MS


EPOCH_MS = time.time_ns() // 1_000_000
_second = [0, b""]


def iso(ms: int) -> bytes:
    second, ms = divmod(ms, 1000)
    if second != _second[0]:
        _second[:] = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)).encode()
    return b"%b.%03dZ" % (_second[1], ms)


def boot(charger: Charger) -> bytes:
    return (
        b'"BootNotification",{"chargePointVendor":"Bench","chargePointModel":"Load 22",'
        b'"chargePointSerialNumber":"SN-%05d","firmwareVersion":"1.0.0","meterType":"MT-3",'
        b'"meterSerialNumber":"MS-%05d"}'
    ) % (charger.index, charger.index)


def authorize(charger: Charger) -> bytes:
    return b'"Authorize",{"idTag":"%b"}' % charger.tag


def start(charger: Charger) -> bytes:
    at = iso(charger.now_ms())
    return (
        b'"StartTransaction",{"connectorId":1,"idTag":"%b","meterStart":%d,"timestamp":"%b"}'
    ) % (charger.tag, charger.register_wh(), at)


def charging(charger: Charger) -> bytes:
    return _status(charger, b"Charging")


def available(charger: Charger) -> bytes:
    return _status(charger, b"Available")


def _status(charger: Charger, status: bytes) -> bytes:
    return (
        b'"StatusNotification",{"connectorId":1,"errorCode":"NoError","status":"%b",'
        b'"timestamp":"%b"}'
    ) % (status, iso(charger.now_ms()))


def _sample(value: str, measurand: str, unit: str, phase: str = "", location: str = "") -> str:
    parts = [f'"value":"{value}"', '"context":"Sample.Periodic"', '"format":"Raw"']
    parts.append(f'"measurand":"{measurand}"')
    if phase:
        parts.append(f'"phase":"{phase}"')
    if location:
        parts.append(f'"location":"{location}"')
    parts.append(f'"unit":"{unit}"')
    return "{" + ",".join(parts) + "}"


METER = (
    '"MeterValues",{"connectorId":1,"transactionId":%b,"meterValue":[{"timestamp":"%b",'
    '"sampledValue":['
    + ",".join(
        [
            _sample("%.3f", "Energy.Active.Import.Register", "Wh", location="Outlet"),
            _sample("22%03d.000", "Power.Active.Import", "W", location="Outlet"),
            _sample("31.%d000", "Current.Import", "A", "L1", "Outlet"),
            _sample("31.8000", "Current.Import", "A", "L2", "Outlet"),
            _sample("31.7000", "Current.Import", "A", "L3", "Outlet"),
            _sample("230.%d000", "Voltage", "V", "L1-N", "Outlet"),
            _sample("230.6000", "Voltage", "V", "L2-N", "Outlet"),
            _sample("229.9000", "Voltage", "V", "L3-N", "Outlet"),
            _sample("57.000", "SoC", "Percent", location="EV"),
            _sample("31.5000", "Temperature", "Celsius", location="Body"),
        ]
    )
    + "]}]}"
).encode()


def meter(charger: Charger) -> bytes:
    at = iso(charger.now_ms())
    wobble = charger.number
    return METER % (
        charger.transaction_id,
        at,
        charger.register_wh(),
        wobble % 1000,
        wobble % 10,
        wobble // 3 % 10,
    )


def stop(charger: Charger) -> bytes:
    at = iso(charger.now_ms())
    return (
        b'"StopTransaction",{"transactionId":%b,"idTag":"%b","meterStop":%d,"timestamp":"%b",'
        b'"reason":"EVDisconnected"}'
    ) % (charger.transaction_id, charger.tag, charger.register_wh() + 1, at)


def heartbeat(_charger: Charger) -> bytes:
    return b'"Heartbeat",{}'


Say = Callable[[Charger], bytes]

SESSION: tuple[Say, ...] = (
    authorize, start, charging, *[meter] * 6, stop, available, heartbeat
)  # fmt: skip
BEGIN: tuple[Say, ...] = (start, charging)
METER_ONLY: tuple[Say, ...] = (meter,)
END: tuple[Say, ...] = (stop, available)

ACTIONS: dict[Say, str] = {
    authorize: "Authorize",
    start: "StartTransaction",
    charging: "StatusNotification",
    available: "StatusNotification",
    meter: "MeterValues",
    stop: "StopTransaction",
    heartbeat: "Heartbeat",
    boot: "BootNotification",
}
#: What `--record` writes of each answered event: 8-byte integers action (index here), charger, ms.
RECORDED = ("StartTransaction", "StatusNotification", "MeterValues", "StopTransaction")


def frame(text: bytes) -> bytes:
    size = len(text)
    head = SMALL_HEADS[size] if size < 126 else b"\x81\xfe" + size.to_bytes(2, "big") + MASK
    return head + apply_mask(text, MASK)
