"""Commands -> OCPP calls -> outcomes.  Runs in the caller's task.

A command of OCPP's own ends with the charge point's response.  One to a connector ends with the
event that makes it true: the StartTransaction after a remote start, the receipt after a remote
stop.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import trio

from ..bus import EventBus, Overflow
from ..domain.clock import iso, milliseconds
from ..domain.commands import Command, CommandOutcome, Done, Failed
from ..domain.events import (
    CommandCarriedOut,
    Event,
    RemoteStopRequested,
    TransactionClosed,
    TransactionSettled,
    TransactionStarted,
)
from ..domain.fleet import device_name
from ..domain.redaction import frame_without_secrets, value_without_secrets, without_secrets
from ..observability.frame_tap import MAX_TRACE_S, FrameTap, TooManyTraces
from .connection import ChargePointConnection
from .errors import (
    ChargePointGone,
    ChargePointRefused,
    ChargePointSilent,
    NotApproved,
    TooManyCalls,
)
from .handlers import Now
from .messages import CENTRAL_SYSTEM_ACTIONS, InvalidCall, InvalidResponse, check_call
from .registry import Registry
from .remote_start import RemoteStart, belongs_to

CHARGE_POINT_METHODS = ("trace",)  # beside those of OCPP
CONNECTOR_METHODS = (
    "remoteStart",
    "remoteStop",
    "setCharging",
    "unlock",
    "setAvailable",
    "closeSession",
)

_STARTS_OR_STOPS = frozenset({"remoteStart", "remoteStop", "setCharging"})
_FULFILLED = frozenset({"Accepted", "Stopped"})
_USUAL_TRACE_MINUTES = 10.0
_MAX_SHOWN = 10_000  # characters of a response that is not JSON


class _InvalidParams(Exception):
    """The params of a command are not what its method takes."""


@attrs.frozen
class CommandRunner:
    """Carries out operators' commands.  Owns: the remote starts that wait for a transaction.

    default_id_tag: for a remoteStart that names none.
    remote_start_timeout_s: seconds from the charge point's Accepted to its StartTransaction, and
        from the Accepted of a remote stop to the receipt.
    """

    bus: EventBus
    registry: Registry
    now: Now
    frame_tap: FrameTap
    default_id_tag: str | None = None
    remote_start_timeout_s: float = 60.0
    _starts: list[RemoteStart] = attrs.field(factory=list)

    async def carry_out(self, command: Command) -> CommandOutcome:
        """How the command ended, which is published too.  A failure is an outcome, not raised."""
        outcome = await self._outcome_of(command)
        carried_out = CommandCarriedOut(
            charge_point_id=command.charge_point_id,
            received_at=self.now(),
            method=command.method,
            result=outcome.result,
            connector_id=command.connector_id,
        )
        elsewhere = isinstance(outcome, Done) and "connectorId" in outcome.payload
        done = outcome.result in _FULFILLED and not elsewhere
        if command.method in _STARTS_OR_STOPS and not done:
            carried_out = self._with_actual_state(carried_out)
        self.bus.publish_soon(carried_out)
        return outcome

    def _with_actual_state(self, event: CommandCarriedOut) -> CommandCarriedOut:
        """The event with whether there is a transaction now.

        ThingsBoard's switches show what was requested until telemetry says otherwise.
        """
        about = self.bus.fleet.state_of(device_name(event.charge_point_id, event.connector_id))
        if not about or not event.connector_id:  # telemetry would create the device
            return event
        # By the clock of the charge point's own values, which may be slow: published at our
        # time, this would outlast the charge point's next value.
        last_ms = about.get("tx_ms") or about.get("since_ms") or milliseconds(event.at) - 1
        active = about.get("tx") is not None
        return attrs.evolve(event, tx_active=active, tx_active_ms=last_ms + 1)

    async def _outcome_of(self, command: Command) -> CommandOutcome:
        try:
            return await self._method(command)(command)
        except _InvalidParams as exc:
            return Failed("InvalidParams", str(exc))
        except InvalidCall as exc:
            return Failed("InvalidParams", str(exc))
        except ChargePointGone as exc:
            return Failed("NotConnected", str(exc))
        except NotApproved as exc:  # in the code that the charge point gets meanwhile
            return Failed("CallError", str(exc), "SecurityError")
        except ChargePointSilent as exc:
            return Failed("Timeout", str(exc))
        except (TooManyCalls, TooManyTraces) as exc:
            return Failed("Busy", str(exc))
        except ChargePointRefused as exc:
            details = value_without_secrets(exc.details)
            return Failed("CallError", without_secrets(str(exc)), exc.code, details)
        except InvalidResponse as exc:
            return Failed("CallError", str(exc), None, _shown(exc.payload))

    def _method(self, command: Command) -> Callable[[Command], Awaitable[CommandOutcome]]:
        if command.connector_id == 0 and command.method in CENTRAL_SYSTEM_ACTIONS:
            return self._ocpp_action
        if command.connector_id == 0 and command.method in CHARGE_POINT_METHODS:
            return self._trace
        if command.connector_id > 0 and command.method in CONNECTOR_METHODS:
            return {
                "remoteStart": self._remote_start,
                "remoteStop": self._remote_stop,
                "setCharging": self._set_charging,
                "unlock": self._unlock,
                "setAvailable": self._set_available,
                "closeSession": self._close_session,
            }[command.method]
        return self._unknown

    async def _unknown(self, command: Command) -> CommandOutcome:
        kind = "connector" if command.connector_id else "charge point"
        return Failed("UnknownMethod", f"a {kind} knows no method {command.method[:60]!r}")

    # --- to a charge point ---------------------------------------------------------------------

    async def _ocpp_action(self, command: Command) -> CommandOutcome:
        """A request of OCPP's own, its payload as given (OCPP 1.6 §5)."""
        params = {} if command.params is None else command.params
        if not isinstance(params, dict):
            raise _InvalidParams(f"{command.method} takes a JSON object, as OCPP has it")
        response = await self._call(command, command.method, **params)
        if command.method == "GetConfiguration":  # some charge points reveal their password
            response = value_without_secrets(response)
        return Done(response)

    async def _trace(self, command: Command) -> CommandOutcome:
        """Copy the frames of a charge point to ThingsBoard for a while, connected or not."""
        minutes = _minutes(command.params)
        if minutes == 0:
            self.frame_tap.end_trace(command.charge_point_id)
            return Done({"status": "Stopped"})
        until = self.frame_tap.start_trace(command.charge_point_id, minutes * 60)
        return Done({"status": "Accepted", "until": iso(until, "seconds")})

    # --- to a connector: they end when it has truly happened --------------------------------------

    async def _remote_start(self, command: Command) -> CommandOutcome:
        id_tag = self._id_tag(command.params)
        name, connector = command.charge_point_id, command.connector_id
        start = RemoteStart(name, connector, id_tag, self.now())

        def is_started(event: Event) -> bool:
            if isinstance(event, TransactionStarted) and belongs_to(event, start, self._starts):
                start.transaction_id = event.transaction_id
                return True
            return False

        async def call() -> dict[str, Any]:
            return await self._call(
                command, "RemoteStartTransaction", connectorId=connector, idTag=id_tag
            )

        self._starts.append(start)
        try:
            response, started = await self._call_and_await_event(
                command, call, TransactionStarted, is_started
            )
        finally:
            start.is_over = True
            # Those that are over stay until all of this charge point's are: the others compare
            # themselves with them, and a transaction that one has got must not fit a second.
            here = [other for other in self._starts if other.charge_point_id == name]
            if all(other.is_over for other in here):
                for other in here:
                    self._starts.remove(other)
        if response["status"] != "Accepted":
            return Done(response)
        if not isinstance(started, TransactionStarted):
            return Failed(
                "Timeout",
                "the charge point accepted, but began no transaction within"
                f" {self.remote_start_timeout_s:g} s; is a car plugged in?",
            )
        if started.id_tag_status != "Accepted":
            result: dict[str, Any] = {"status": "Rejected", "reason": started.id_tag_status}
        else:
            result = {"status": "Accepted"}
        if started.connector_id != connector:
            result["connectorId"] = started.connector_id
        return Done({**result, "transactionId": started.transaction_id})

    async def _remote_stop(self, command: Command) -> CommandOutcome:
        transaction_id = self.bus.fleet.open_transaction(
            command.charge_point_id, command.connector_id
        )
        if transaction_id is None:
            self.registry.connection(command.charge_point_id)  # NotConnected goes first
            return Done({"status": "Rejected", "reason": "NoTransaction"})

        def is_settled(event: Event) -> bool:
            return isinstance(event, TransactionSettled) and event.transaction_id == transaction_id

        async def call() -> dict[str, Any]:
            return await self._call(command, "RemoteStopTransaction", transactionId=transaction_id)

        response, settled = await self._call_and_await_event(
            command, call, TransactionSettled, is_settled
        )
        if response["status"] != "Accepted":
            return Done(response)
        if not isinstance(settled, TransactionSettled):
            return Failed(
                "Timeout",
                "the charge point accepted, but its transaction goes on after"
                f" {self.remote_start_timeout_s:g} s",
            )
        return Done({"status": "Stopped", "receipt_id": settled.receipt["receipt_id"]})

    async def _set_charging(self, command: Command) -> CommandOutcome:
        if _true_or_false(command):
            return await self._remote_start(attrs.evolve(command, params=None))
        return await self._remote_stop(command)

    async def _unlock(self, command: Command) -> CommandOutcome:
        return Done(await self._call(command, "UnlockConnector", connectorId=command.connector_id))

    async def _set_available(self, command: Command) -> CommandOutcome:
        kind = "Operative" if _true_or_false(command) else "Inoperative"
        return Done(
            await self._call(
                command, "ChangeAvailability", connectorId=command.connector_id, type=kind
            )
        )

    async def _close_session(self, command: Command) -> CommandOutcome:
        """Close a transaction that its charge point does not stop, in the ledger alone."""
        transaction_id = self.bus.fleet.open_transaction(
            command.charge_point_id, command.connector_id
        )
        if transaction_id is None:
            return Done({"status": "Rejected", "reason": "NoTransaction"})
        closed = TransactionClosed(
            charge_point_id=command.charge_point_id,
            received_at=self.now(),
            transaction_id=transaction_id,
            connector_id=command.connector_id,
            reason="Operator",
        )
        with self.bus.subscribe(TransactionSettled, overflow=Overflow.DROP_OLDEST) as entries:
            await self.bus.publish(closed)
            with trio.move_on_after(self.remote_start_timeout_s):
                async for entry in entries:
                    event = entry.event
                    if (
                        isinstance(event, TransactionSettled)
                        and event.transaction_id == transaction_id
                    ):
                        return Done({"status": "Closed", "receipt_id": event.receipt["receipt_id"]})
        return Failed("Timeout", "accounting is behind: it will be closed when it has caught up")

    # --- what they share -------------------------------------------------------------------------

    async def _call(self, command: Command, action: str, /, **payload: Any) -> dict[str, Any]:
        connection = self.registry.connection(command.charge_point_id)
        if action == "RemoteStopTransaction":
            return await self._call_remote_stop(connection, payload)
        return await connection.call(action, payload)

    async def _call_remote_stop(
        self, connection: ChargePointConnection, payload: dict[str, Any]
    ) -> dict[str, Any]:
        """RemoteStopTransaction, recorded first: the StopTransaction may name no reason.

        The event is withdrawn where the charge point has not accepted.
        """
        check_call("RemoteStopTransaction", payload)
        name, transaction_id = connection.charge_point_id, payload["transactionId"]
        connector = self.bus.fleet.connector_of(name, transaction_id)
        if transaction_id != self.bus.fleet.open_transaction(name, connector):
            return await connection.call("RemoteStopTransaction", payload)  # it is not open here
        requested = RemoteStopRequested(
            charge_point_id=name,
            received_at=self.now(),
            transaction_id=transaction_id,
            connector_id=connector,
        )
        await self.bus.publish(requested)
        accepted = False
        try:
            response = await connection.call("RemoteStopTransaction", payload)
            accepted = response["status"] == "Accepted"
            return response
        finally:
            if not accepted:
                self.bus.publish_soon(
                    attrs.evolve(requested, received_at=self.now(), withdrawn=True)
                )

    async def _call_and_await_event(
        self,
        command: Command,
        call: Callable[[], Awaitable[dict[str, Any]]],
        kind: type[Event],
        is_awaited: Callable[[Event], bool],
    ) -> tuple[dict[str, Any], Event | None]:
        """The response, and the event that makes it true; None where none came in time.

        The event may come before the response, since some charge points begin the transaction
        first and respond then.  So the subscription begins before the call.
        """
        with self.bus.subscribe(kind, overflow=Overflow.DROP_OLDEST, capacity=10_000) as entries:
            response = await call()
            if response["status"] == "Accepted":
                with trio.move_on_after(self.remote_start_timeout_s):
                    async for entry in entries:
                        event = entry.event
                        if event.charge_point_id == command.charge_point_id and is_awaited(event):
                            return response, event
        return response, None

    def _id_tag(self, params: Any) -> str:
        if params is None or params == {}:
            if self.default_id_tag is None:
                raise _InvalidParams(
                    'no idTag: send {"idTag": "..."}, or configure [commands] default_id_tag'
                )
            return self.default_id_tag
        if isinstance(params, dict) and isinstance(params.get("idTag"), str):
            return str(params["idTag"])
        raise _InvalidParams('remoteStart takes {"idTag": "..."} or nothing')


def _shown(payload: Any) -> Any:
    """An unreadable response without its secrets; text where it was not JSON at all."""
    if isinstance(payload, str):
        return frame_without_secrets(payload)[:_MAX_SHOWN]
    return value_without_secrets(payload)


def _true_or_false(command: Command) -> bool:
    if isinstance(command.params, bool):
        return command.params
    raise _InvalidParams(f"{command.method} takes true or false")


def _minutes(params: Any) -> float:
    """How long a trace is to last; 0 to end it."""
    if params is None or params is True or params == {}:
        return _USUAL_TRACE_MINUTES
    if params is False:
        return 0.0
    minutes = params.get("minutes") if isinstance(params, dict) else None
    if isinstance(minutes, bool) or not isinstance(minutes, int | float):
        raise _InvalidParams('trace takes {"minutes": 10}, true or false')
    if not 0 <= minutes <= MAX_TRACE_S / 60:
        raise _InvalidParams(f"minutes must lie between 0 and {MAX_TRACE_S / 60:g}")
    return float(minutes)
