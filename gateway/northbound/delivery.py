"""Delivery over one MQTT connection: rows are packed, rate-limited, sent, and their PUBACKs
judged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime

import attrs
import structlog
import trio

from ..domain.fleet import Fleet
from ..journal import DeadLetter, Span
from .batching import TelemetryMessage, pack, topic_of
from .deferrals import DeferralCounts, LinkDeferrals
from .device_sessions import DeviceSessions
from .mqtt import (
    QUOTA_EXCEEDED,
    REFUSED,
    Delivery,
    Publication,
    is_server_state,
    puback_codes,
    publish,
)
from .poison import ATTEMPTS, WatchedLink
from .rate_limits import LIMITS_REQUEST, RateLimiter
from .statistics import DeliveryStatistics
from .telemetry import TelemetryRow, attributes, sign_of_life

_KEEP_ALIVE_EVERY = 240.0  # seconds; ThingsBoard forgets a silent device's session after 600
_MAX_SIGNS = 50
_CHECK_EVERY = _KEEP_ALIVE_EVERY / 8
_NOT_ADMITTED = "ThingsBoard does not admit the device: is a limit of devices reached?"

log = structlog.get_logger(__name__)


_EntryRows = list[tuple[int, TelemetryRow]]  # rows, and the entry that each is of
_Sent = list[tuple[TelemetryMessage, Delivery | None]]  # None for what is too large to be sent


@attrs.frozen
class Batch:
    """Entries on their way.

    span: the first and the last.  entry_rows: their rows.  sent: the same, packed.  withheld: those
    that are not sent, for their devices are not let in.
    attributes_due: devices whose client attributes are to be sent as they are now, and for which
        entry.
    """

    span: Span
    entry_rows: _EntryRows
    sent: _Sent
    withheld: _EntryRows
    attributes_due: dict[str, int] = attrs.field(factory=dict)

    @property
    def is_empty(self) -> bool:
        return not self.entry_rows and not self.attributes_due


@attrs.frozen
class BatchOutcome:
    """Which entries of a batch became dead letters, and which are deferred; the rest is
    delivered.
    """

    dead_letters: tuple[DeadLetter, ...] = ()
    deferred: frozenset[int] = frozenset()


@attrs.frozen
class _RefusedMessage:
    """temporary: the code says something about the server, not about the message."""

    message: TelemetryMessage
    why: str
    temporary: bool = False


class TelemetrySender:
    """Sends rows over one connection.  Owns: when each device was last sent, and what is
    deferred.
    """

    def __init__(
        self,
        link: WatchedLink,
        fleet: Fleet,
        now: Callable[[], datetime],
        statistics: DeliveryStatistics,
        rate_limiter: RateLimiter,
        deferral_counts: DeferralCounts,
        *,
        session_log: str,
        batch_devices: bool,
    ) -> None:
        self.rate_limiter = rate_limiter
        self._link = link
        self._fleet = fleet
        self._now = now
        self._statistics = statistics
        self._session_log = session_log
        self._batch_devices = batch_devices
        self._deferral_counts = deferral_counts
        self._device_sessions = DeviceSessions(link, rate_limiter, deferral_counts, session_log)
        self._deferrals = LinkDeferrals()
        self._last_sent: dict[str, float] = {}

    async def send_batch(
        self, span: Span, entry_rows: _EntryRows, *, backlog: bool = False
    ) -> Batch:
        """Send all, in order, as far as the server takes it.

        backlog: it belongs to a backlog, and gives way to what is new.  Attributes have no time, so
            that old ones would replace new ones: of those, the present values are sent instead.
        """
        tracker = self._statistics.tracker
        with_time: _EntryRows = []
        attributes_due: dict[str, int] = {}
        for seq, row in entry_rows:
            if row.ts is None and (backlog or tracker.is_overtaken(seq)):
                attributes_due[row.device] = seq
            else:
                with_time.append((seq, row))
        sent, withheld = await self._send_all(with_time, urgent=not backlog)
        self._note_sent(row.device for _, row in with_time)
        return Batch(span, with_time, sent, withheld, attributes_due)

    async def _send_all(
        self, entry_rows: _EntryRows, *, urgent: bool = True
    ) -> tuple[_Sent, _EntryRows]:
        """What was sent, and what was withheld: its device is not admitted, or it is deferred
        as often as anything may be.
        """
        await self._announce(dict.fromkeys(row.device for _, row in entry_rows))
        withheld = [item for item in entry_rows if not self._is_deliverable(*item)]
        deliverable = (
            [item for item in entry_rows if self._is_deliverable(*item)] if withheld else entry_rows
        )
        packed = self._messages_of(deliverable, batch_devices=self._batch_devices)
        return [(message, await self._send(message, urgent=urgent)) for message in packed], withheld

    def _is_deliverable(self, seq: int, row: TelemetryRow) -> bool:
        return (
            row.device in self._device_sessions.admitted
            and not self._deferral_counts.is_exhausted(seq)
        )

    async def send_unjournaled(self, rows: Sequence[TelemetryRow]) -> None:
        """Send rows that are no entries of the journal, when nothing else waits; returns when they
        are acknowledged.

        What is refused is not sent again.
        """
        sent, _ = await self._send_all([(0, row) for row in rows], urgent=False)
        await self._refused_messages(sent)

    def _messages_of(
        self, entry_rows: Iterable[tuple[int, TelemetryRow]], *, batch_devices: bool
    ) -> list[TelemetryMessage]:
        return [
            message
            for together in self._link.split_suspected(self._link.undelivered(entry_rows))
            for message in pack(
                together,
                batch_devices=batch_devices,
                max_bytes=self.rate_limiter.max_bytes,
                max_values=self.rate_limiter.max_values,
            )
        ]

    async def _send(self, message: TelemetryMessage, *, urgent: bool = True) -> Delivery | None:
        """None for what is too large to be sent."""
        if len(message.publication.payload) > self.rate_limiter.max_bytes:
            return None
        await self.rate_limiter.wait_to_send_telemetry(message.cost, urgent=urgent)
        return await self._link.send_message(message)

    async def settle(self, batch: Batch) -> BatchOutcome:
        """Returns once all is delivered, refused or deferred."""
        refused = _rows_refused(batch.entry_rows, await self._refused_messages(batch.sent))
        undelivered = await self._send_attributes(batch.attributes_due)
        return await self._retry_each_entry([*refused, *batch.withheld, *undelivered])

    async def _send_attributes(self, attributes_due: Mapping[str, int]) -> _EntryRows:
        """Send client attributes as they are now, and again where they change meanwhile.

        Returns what was not accepted.
        """
        sent_rows: dict[str, TelemetryRow] = {}
        undelivered: dict[str, tuple[int, TelemetryRow]] = {}
        while changed := [
            (seq, row)
            for device, seq in attributes_due.items()
            if (row := attributes(device, self._fleet.state_of(device))).values
            and row != sent_rows.get(device)
        ]:
            sent, withheld = await self._send_all(changed)
            refused = _rows_refused(changed, await self._refused_messages(sent))
            for _, row in changed:
                sent_rows[row.device] = row
                undelivered.pop(row.device, None)
            undelivered |= {row.device: (seq, row) for seq, row in (*refused, *withheld)}
        return list(undelivered.values())

    async def _refused_messages(self, sent: _Sent) -> list[_RefusedMessage]:
        """The messages that were refused and why, once all are acknowledged."""
        refused = []
        await puback_codes([delivery for _, delivery in sent if delivery is not None])
        for message, delivery in sent:
            if delivery is None:
                size = len(message.publication.payload)
                refused.append(
                    _RefusedMessage(message, f"{size} bytes are more than ThingsBoard takes")
                )
                continue
            if delivery.why:
                refused.append(_RefusedMessage(message, delivery.why))
                continue
            self._statistics.published += 1
            code = delivery.code or 0
            if code == QUOTA_EXCEEDED:
                self.rate_limiter.limit_exceeded()
            if code >= REFUSED:
                self._statistics.refused += 1
                why = f"refused with code 0x{code:02x}"
                refused.append(_RefusedMessage(message, why, temporary=is_server_state(code)))
        return refused

    async def _retry_each_entry(self, entry_rows: _EntryRows) -> BatchOutcome:
        """Send the entries of refused messages again, each by itself, so that only those at
        fault become dead letters.
        """
        dead_letters: list[DeadLetter] = []
        deferred: set[int] = set()
        for seq in dict.fromkeys(seq for seq, _ in entry_rows):
            of_entry = [item for item in entry_rows if item[0] == seq]
            why = await self._retry_entry(of_entry)
            if why is None:
                deferred.add(seq)
            elif why:
                log.warning("entry became a dead letter", seq=seq, why=why)
                self._statistics.dead_letters += 1
                dead_letters.append(DeadLetter(seq, why))
        return BatchOutcome(tuple(dead_letters), frozenset(deferred))

    async def _retry_entry(self, entry_rows: _EntryRows) -> str | None:
        """Why an entry becomes a dead letter; empty where it is delivered, None where it is
        deferred.
        """
        seq = entry_rows[0][0]
        if self._deferral_counts.is_exhausted(seq):
            return "ThingsBoard failed at it for minutes, each time (0x80 or 0x97)"
        deliverable = [
            item for item in entry_rows if item[1].device in self._device_sessions.admitted
        ]
        refused = [
            _RefusedMessage(message, "")
            for message in self._messages_of(deliverable, batch_devices=False)
        ]
        for _ in range(ATTEMPTS):
            refused = await self._refused_messages(
                [(refusal.message, await self._send(refusal.message)) for refusal in refused]
            )
            if not refused or refused[0].temporary:
                break
        reasons_to_defer: list[tuple[int | str, str]] = [
            (row.device, _NOT_ADMITTED)
            for _, row in entry_rows
            if row.device not in self._device_sessions.admitted
        ]
        for refusal in refused:
            if not refusal.temporary:
                return refusal.why
            reasons_to_defer.append((seq, refusal.why))
        for key, why in reasons_to_defer:
            if self._deferral_counts.is_exhausted(key):
                return why
        for key, _ in reasons_to_defer:
            self._deferrals.add(key)
        return None if reasons_to_defer else ""

    async def send_response(self, device: str, response: Publication) -> None:
        """Send an RPC response in a device's name, where it is admitted."""
        await self._announce([device])
        if (
            device not in self._device_sessions.admitted
        ):  # a response would create it (thingsboard-contract R1)
            log.warning("RPC response dropped: the device is not admitted", device=device)
            return
        await self.rate_limiter.wait_to_send()
        await publish(self._link, [response])

    async def _announce(self, devices: Iterable[str], *, retry_rejected: bool = False) -> None:
        await self._device_sessions.announce(devices, retry_rejected=retry_rejected)
        if self._device_sessions.is_full:
            for device in self._device_sessions.rejected:
                self._deferrals.add(device)
            await self._reconnect()

    async def _reconnect(self) -> None:
        """End this connection for a new one, which begins with all that was deferred.

        Where the server acknowledges signs of life, it is healthy, and the failure counts against
        the entries.
        """
        if await self._send_signs_of_life(sorted(self._device_sessions.admitted)[:_MAX_SIGNS]):
            for key in self._deferrals.keys:
                self._deferral_counts.count(key)
        raise self._link.end_error("a new connection is to send what was deferred")

    async def request_limits(self) -> None:
        """Ask the server what it allows; returns when its answer has come to `pace`, or cannot."""
        await publish(self._link, [LIMITS_REQUEST])
        await self.rate_limiter.wait_limits_known()

    async def keep_alive(self) -> None:
        """Announce every device, and send a sign of life of each every few minutes."""
        while True:
            if self._deferrals.is_due():
                await self._reconnect()
            now = trio.current_time()
            due = [
                device
                for device in (self._session_log, *self._fleet.devices)
                if now - self._last_sent.get(device, -_KEEP_ALIVE_EVERY) >= _KEEP_ALIVE_EVERY
            ]
            due.sort(
                key=self._device_sessions.is_rejected
            )  # a device that is rejected may never be answered
            for first in range(0, len(due), _MAX_SIGNS):
                if await self._keep_alive_some(due[first : first + _MAX_SIGNS]):
                    self._link.server_alive.set()
            await trio.sleep(_CHECK_EVERY)

    async def _keep_alive_some(self, devices: Sequence[str]) -> bool:
        """Whether the server took any of it."""
        await self._announce(devices, retry_rejected=True)
        let_in = self._device_sessions.admitted
        taken = await self._send_signs_of_life([device for device in devices if device in let_in])
        self._note_sent(devices)
        return taken

    async def _send_signs_of_life(self, devices: Sequence[str]) -> bool:
        """Whether the server took any of it, or there was nothing that could be said."""
        at = self._now()
        signs: _EntryRows = []
        silent = []
        for device in devices:
            sign = sign_of_life(device, self._fleet.state_of(device), at)
            if sign.values:
                signs.append((0, sign))
            else:  # nothing is known of it that could be said: announcing it again is life too
                silent.append(device)
        await self._device_sessions.connect(silent)
        packed = self._messages_of(signs, batch_devices=self._batch_devices)
        sent = [(message, await self._send(message)) for message in packed]
        refused = await self._refused_messages(sent)
        return len(refused) < len(sent) or not sent

    def keep_alive_soon(self) -> None:
        """Have a sign of life of every device sent soon."""
        self._last_sent.clear()

    def _note_sent(self, devices: Iterable[str]) -> None:
        now = trio.current_time()
        for device in devices:
            self._last_sent[device] = now


def _rows_refused(entry_rows: _EntryRows, refused: Iterable[_RefusedMessage]) -> _EntryRows:
    """The rows of the messages that were refused.

    What was accepted is not sent again: of attributes, which have no time, the last one stands.
    """
    concerned = {
        (refusal.message.publication.topic, seq)
        for refusal in refused
        for seq in refusal.message.seqs
    }
    return [(seq, row) for seq, row in entry_rows if (topic_of(row), seq) in concerned]
