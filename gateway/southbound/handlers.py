"""The handlers: a charge point's request -> events in the journal -> the response.

One handler for each action, `on_meter_values` for MeterValues, in the table of RequestHandlers.
The response leaves only after the events are durable.  A charge point that got no response repeats
its request, so a request that got one is never lost, and one without is never taken for recorded.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any

import attrs
import structlog
import trio

from ..bus import EventBus, JournalError
from ..config.model import Config
from ..domain import events, refused_tags
from ..domain.charge_point_clock import ChargePointClock
from ..domain.clock import SteadyClock, iso
from ..domain.connector_state import completed, inferred, status_inferred
from ..domain.fleet import device_name, is_another
from ..domain.tags import IdTag, TagList
from ..offload import offload
from .errors import Unanswerable
from .messages import TRANSACTION_ACTIONS, FrameError, Request
from .request_events import event_of
from .websocket import ENDS_CONNECTION

COST_MESSAGES = "org.openchargealliance.costmsg"
_REJECTED_EVERY = 10.0  # seconds between two events about rejected frames of one charge point
_DEVIATIONS_LOGGED = 10
_DEVIATIONS_EVERY = 3600.0  # seconds

log = structlog.get_logger(__name__)

Now = Callable[[], datetime]
Response = Mapping[str, Any]


@attrs.frozen(kw_only=True)
class HandlerSettings:
    """What holds for every charge point alike.

    heartbeat_interval_s: seconds.  publish_heartbeats: whether Heartbeats become events.
    pending_unknown: whether charge points that the configuration does not name wait for approval.
    concurrent_tx: whether an id tag may charge in two places at once.
    energy_scales: charge point id -> what its registers are multiplied by, where not by 1.
    """

    tags: TagList = attrs.field(factory=TagList)
    heartbeat_interval_s: int = 300
    publish_heartbeats: bool = False
    pending_unknown: bool = False
    concurrent_tx: bool = True
    energy_scales: Mapping[str, Decimal] = attrs.field(factory=dict)

    @classmethod
    def of(cls, config: Config) -> HandlerSettings:
        ocpp = config.ocpp
        tags = {
            name.lower(): IdTag(status=tag.status, expires=tag.expires, parent=tag.parent)
            for name, tag in config.id_tags.items()
        }
        return cls(
            tags=TagList(tags, accept_unknown=ocpp.unknown_id_tags == "accept"),
            heartbeat_interval_s=ocpp.heartbeat_interval_s,
            publish_heartbeats=config.thingsboard.compat == "node-red",
            pending_unknown=ocpp.unknown_charge_points == "pending",
            concurrent_tx=ocpp.concurrent_tx == "accept",
            energy_scales={
                name: cp.energy_scale
                for name, cp in config.charge_points.items()
                if cp.energy_scale not in (None, 1)
            },
        )


class RequestHandlers:
    """Handles one charge point's requests.  It cannot call the charge point: it does not know the
    connection.

    pending: whether the charge point waits for approval.
    booted: set once a BootNotification got its response.
    """

    def __init__(
        self,
        charge_point_id: str,
        bus: EventBus,
        now: Now,
        settings: HandlerSettings,
        clock: ChargePointClock,
        steady_clock: SteadyClock,
        *,
        known: bool,
    ) -> None:
        self._charge_point_id = charge_point_id
        self._bus = bus
        self._now = now
        self._settings = settings
        self._clock = clock
        self._steady_clock = steady_clock
        self.pending = settings.pending_unknown and not known
        self.booted = trio.Event()
        self._rejected_published_at = -math.inf
        self._deviation_logged_at = -math.inf
        self._refused_tags = 0
        self._handlers: Mapping[str, Callable[[Request], Awaitable[Response]]] = {
            "Authorize": self.on_authorize,
            "BootNotification": self.on_boot_notification,
            "DataTransfer": self.on_data_transfer,
            "DiagnosticsStatusNotification": self.on_diagnostics_status_notification,
            "FirmwareStatusNotification": self.on_firmware_status_notification,
            "Heartbeat": self.on_heartbeat,
            "LogStatusNotification": self.on_log_status_notification,
            "MeterValues": self.on_meter_values,
            "SecurityEventNotification": self.on_security_event_notification,
            "SignCertificate": self.on_sign_certificate,
            "SignedFirmwareStatusNotification": self.on_signed_firmware_status_notification,
            "StartTransaction": self.on_start_transaction,
            "StatusNotification": self.on_status_notification,
            "StopTransaction": self.on_stop_transaction,
        }

    async def handle(self, request: Request) -> Response:
        """The payload of the CALLRESULT.  Raises Unanswerable, which becomes a CALLERROR.

        A bug of ours becomes an InternalError, to this charge point only; but a transaction
        message must not get a CALLERROR (charge points drop it for good), so there it is raised:
        the connection ends without a response, and the message will come again.
        """
        if self.pending and request.action not in TRANSACTION_ACTIONS | {"BootNotification"}:
            raise Unanswerable("SecurityError", "this charge point is not approved yet")
        try:
            return await self._handlers[request.action](request)
        except (Unanswerable, JournalError):
            raise
        except Exception:
            if request.action in TRANSACTION_ACTIONS:
                raise
            log.exception(
                "request not answered", charge_point=self._charge_point_id, action=request.action
            )
            raise Unanswerable("InternalError", "an internal error occurred") from None

    # --- transactions and measurements ---------------------------------------------------------

    async def on_start_transaction(self, request: Request) -> Response:
        """OCPP 1.6 §4.8.  The journal gives the transaction id, the same one to a repetition."""
        event = self._event_of(request)
        assert isinstance(event, events.TransactionStarted)  # noqa: S101  by its action
        info = self._settings.tags.info(event.id_tag, self._now())
        if info["status"] == "Accepted" and self._charges_elsewhere(event):
            info = {**info, "status": "ConcurrentTx"}
        # Also a refused transaction is real: it may have run offline, and energy with it.
        (entry,) = await self._bus.publish(attrs.evolve(event, id_tag_status=info["status"]))
        self._count_refused_tags(info["status"])
        started = entry.event
        assert isinstance(started, events.TransactionStarted)  # noqa: S101  as it went in
        self._clock.started(started)
        self._bus.publish_soon(*inferred(started, self._bus.fleet))
        return {"transactionId": started.transaction_id, "idTagInfo": info}

    async def on_meter_values(self, request: Request) -> Response:
        """OCPP 1.6 §4.7: always a CALLRESULT, whatever the values are."""
        event = completed(await self._event_of_long(request), self._bus.fleet)
        await self._bus.publish(event)
        return {}

    async def on_stop_transaction(self, request: Request) -> Response:
        """OCPP 1.6 §4.10: always a CALLRESULT, also for a transaction that is not known."""
        event = await self._event_of_long(request)
        assert isinstance(event, events.TransactionStopped)  # noqa: S101  by its action
        stopped = completed(event, self._bus.fleet)
        await self._bus.publish(stopped, *inferred(stopped, self._bus.fleet))
        if event.id_tag is None:  # OCPP 1.6 §4.10: idTagInfo answers an idTag
            return {}
        return {"idTagInfo": self._settings.tags.info(event.id_tag, self._now())}

    # --- the charge point and its connectors ----------------------------------------------------

    async def on_boot_notification(self, request: Request) -> Response:
        """OCPP 1.6 §4.2."""
        status = "Pending" if self.pending else "Accepted"
        event = self._event_of(request)
        assert isinstance(event, events.ChargePointBooted)  # noqa: S101  by its action
        replaced = is_another(self._bus.fleet.state_of(self._charge_point_id), event)
        await self._bus.publish(attrs.evolve(event, status=status, replaced=replaced))
        self.booted.set()
        return {
            "currentTime": iso(self._now(), "milliseconds"),  # as in the specification's examples
            "interval": self._settings.heartbeat_interval_s,
            "status": status,
        }

    async def on_heartbeat(self, _: Request) -> Response:
        now = self._now()
        if self._settings.publish_heartbeats:
            self._bus.publish_soon(
                events.HeartbeatReceived(charge_point_id=self._charge_point_id, received_at=now)
            )
        return {"currentTime": iso(now, "milliseconds")}

    async def on_authorize(self, request: Request) -> Response:
        now = self._now()
        id_tag: str = request.payload["idTag"]
        info = self._settings.tags.info(id_tag, now)
        self._bus.publish_soon(  # the response promises nothing that a crash could break
            events.IdTagPresented(
                charge_point_id=self._charge_point_id,
                received_at=now,
                id_tag=id_tag,
                status=info["status"],
            )
        )
        self._count_refused_tags(info["status"])
        return {"idTagInfo": info}

    async def on_status_notification(self, request: Request) -> Response:
        event = completed(await self._event_of_long(request), self._bus.fleet)
        await self._bus.publish(event)
        return {}

    async def _on_notification(self, request: Request) -> Response:
        """A notification that is recorded and has no effect here."""
        await self._bus.publish(await self._event_of_long(request))
        return {}

    on_diagnostics_status_notification = _on_notification
    on_firmware_status_notification = _on_notification
    on_log_status_notification = _on_notification
    on_security_event_notification = _on_notification
    on_signed_firmware_status_notification = _on_notification

    async def on_data_transfer(self, request: Request) -> Response:
        await self._bus.publish(self._event_of(request))
        known = request.payload.get("vendorId") == COST_MESSAGES
        if known and request.payload.get("messageId") == "ConnectorUnplugged":
            return {"status": "Accepted"}
        return {"status": "UnknownMessageId" if known else "UnknownVendorId"}

    async def on_sign_certificate(self, _: Request) -> Response:
        return {"status": "Rejected"}  # there is no certificate authority to ask

    # --- what is not a request ------------------------------------------------------------------

    def frame_rejected(self, error: FrameError, total: int) -> None:
        """Publish an event about frames that broke the protocol: at most one in
        `_REJECTED_EVERY` seconds, for there may be thousands.

        total: rejected frames of this connection so far.
        """
        now = trio.current_time()  # a wall clock may jump
        last = error.code in ENDS_CONNECTION  # no later event will hold the number
        if last or now - self._rejected_published_at >= _REJECTED_EVERY:
            self._rejected_published_at = now
            log.info(
                "frame rejected",
                charge_point=self._charge_point_id,
                code=error.code,
                why=error.why,
                rejected_frames=total,
            )
            self._bus.publish_soon(
                events.FramesRejected(
                    charge_point_id=self._charge_point_id,
                    received_at=self._now(),
                    total=total,
                    code=error.code,
                    why=error.why[:200],
                )
            )

    def deviated(self, action: str, what: str, total: int) -> None:
        """Publish an event about messages that broke their schema but were read.

        Some charge points do so in every message: each of the first `_DEVIATIONS_LOGGED` gets an
        event, and then one in `_DEVIATIONS_EVERY` seconds.
        """
        now = trio.current_time()
        if total > _DEVIATIONS_LOGGED and now - self._deviation_logged_at < _DEVIATIONS_EVERY:
            return
        self._deviation_logged_at = now
        if total == 1:
            log.info(
                "charge point breaks the schema in what can be read all the same",
                charge_point=self._charge_point_id,
                action=action,
                what=what,
            )
        self._bus.publish_soon(
            events.SchemaDeviated(
                charge_point_id=self._charge_point_id,
                received_at=self._now(),
                total=total,
                action=action,
                what=what[:200],
            )
        )

    def infer_statuses(self, since: datetime) -> None:
        """Publish the status of connectors that have reported none since the charge point
        connected.

        Of a charge point that has reported no connector at all, connector 1 is meant: every charge
        point has it (OCPP 1.6 §3.8).  since: when it connected.
        """
        fleet, name = self._bus.fleet, self._charge_point_id
        seen = events.Event(charge_point_id=name, received_at=self._now(), timestamp=since)
        for connector in fleet.connectors(name) or (1,):
            is_open = fleet.open_transaction(name, connector) is not None
            status = "Charging" if is_open else "Available"
            self._bus.publish_soon(*status_inferred(seen, connector, status, fleet))

    # --- what they share -----------------------------------------------------------------------

    def _count_refused_tags(self, status: str) -> None:
        """Publish a security event when id tags are refused again and again."""
        self._refused_tags, event_type = refused_tags.count_refused(self._refused_tags, status)
        if event_type is not None:
            self._bus.publish_soon(
                events.SecurityEventReported(
                    charge_point_id=self._charge_point_id, received_at=self._now(), type=event_type
                )
            )

    def _charges_elsewhere(self, event: events.TransactionStarted) -> bool:
        """Whether the id tag's owner has a transaction elsewhere.

        The same connector does not count: the start is a repetition of what runs there, or ends it.
        """
        if self._settings.concurrent_tx:
            return False
        here = device_name(self._charge_point_id, event.connector_id)
        owner = self._settings.tags.owner
        return owner(event.id_tag) in map(owner, self._bus.fleet.busy_tags(but=here))

    async def _event_of_long(self, request: Request) -> events.Event:
        """`_event_of` for requests that may be long: then others are served meanwhile."""
        if not request.long:
            return self._event_of(request)
        event = await offload(partial(self._read, request, self._now()))
        return self._with_charge_point_state(event)

    def _event_of(self, request: Request) -> events.Event:
        return self._with_charge_point_state(self._read(request, self._now()))

    def _read(self, request: Request, received_at: datetime) -> events.Event:
        """Pure, for it may run in a thread."""
        event = event_of(
            request.action,
            request.payload,
            charge_point_id=self._charge_point_id,
            received_at=received_at,
        )
        if event is None:
            raise TypeError(f"no event in a {request.action}")
        return event

    def _with_charge_point_state(self, event: events.Event) -> events.Event:
        """The event with what is known of the charge point's clock and registers."""
        return self._clock.judged(self._with_scale(event), self._steady_clock.when_set_back())

    def _with_scale(self, event: events.Event) -> events.Event:
        scale = self._settings.energy_scales.get(self._charge_point_id)
        if isinstance(event, events.MeterSampled):
            about = (event.charge_point_id, event.connector_id, event.transaction_id)
            scale = self._bus.fleet.energy_scale(*about, scale)
        elif not isinstance(event, events.TransactionStarted):
            return event
        return event if scale is None else attrs.evolve(event, energy_scale=scale)
