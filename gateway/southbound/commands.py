"""Commands -> OCPP calls -> how they ended.  Runs in the caller's task."""

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
from .remote_start import RemoteStart, is_for

CHARGE_POINT_METHODS = ("trace",)  # beside those of OCPP
CONNECTOR_METHODS = (
    "remoteStart",
    "remoteStop",
    "setCharging",
    "unlock",
    "setAvailable",
    "closeSession",
)

_OF_A_TRANSACTION = frozenset({"remoteStart", "remoteStop", "setCharging"})
_FULFILLED = frozenset({"Accepted", "Stopped"})
_MINUTES = 10.0  # that a trace lasts without `shutdown` how long
_MAX_SHOWN = 10_000  # characters of an answer that is not JSON


class _Invalid(Exception):
    """The params of a command are not what it takes."""


@attrs.frozen
class CommandRunner:
    """Carries out operators' commands.

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
        """How it ended; the same is published.  Raises nothing for what was asked or done."""
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
        if command.method in _OF_A_TRANSACTION and not done:
            carried_out = self._with_actual_state(carried_out)
        self.bus.publish_soon(carried_out)
        return outcome

    def _with_actual_state(self, event: CommandCarriedOut) -> CommandCarriedOut:
        """The event, and whether there is a transaction, for a switch that shows another wish."""
        about = self.bus.fleet.state_of(device_name(event.charge_point_id, event.connector_id))
        if not about or not event.connector_id:  # telling of a device would create it
            return event
        # By the clock of the charge point's own values, which may be slow: published at our
        # time, this would outlast the charge point's next value.
        last_ms = about.get("tx_ms") or about.get("since_ms") or milliseconds(event.at) - 1
        active = about.get("tx") is not None
        return attrs.evolve(event, tx_active=active, tx_active_ms=last_ms + 1)

    async def _outcome_of(self, command: Command) -> CommandOutcome:
        try:
            return await self._method(command)(command)
        except _Invalid as exc:
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
            return Failed("CallError", str(exc), None, _for_people(exc.payload))

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
        """A message of OCPP's own, its payload as given (OCPP 1.6 §5)."""
        params = {} if command.params is None else command.params
        if not isinstance(params, dict):
            raise _Invalid(f"{command.method} takes a JSON object, as OCPP has it")
        answer = await self._call(command, command.method, **params)
        if command.method == "GetConfiguration":  # some charge points reveal their password
            answer = value_without_secrets(answer)
        return Done(answer)

    async def _trace(self, command: Command) -> CommandOutcome:
        """Tell ThingsBoard what is said on the line of a charge point, connected or not."""
        minutes = _minutes(command.params)
        if minutes == 0:
            self.frame_tap.end_trace(command.charge_point_id)
            return Done({"status": "Stopped"})
        until = self.frame_tap.start_trace(command.charge_point_id, minutes * 60)
        return Done({"status": "Accepted", "until": iso(until, "seconds")})

    # --- to a connector: they answer when it has truly happened -----------------------------------

    async def _remote_start(self, command: Command) -> CommandOutcome:
        id_tag = self._id_tag(command.params)
        connector = command.connector_id

        name = command.charge_point_id
        asked = RemoteStart(name, connector, id_tag, self.now())

        def ours(event: Event) -> bool:
            if isinstance(event, TransactionStarted) and is_for(event, asked, self._starts):
                asked.began = event.transaction_id
                return True
            return False

        async def ask() -> dict[str, Any]:
            return await self._call(
                command, "RemoteStartTransaction", connectorId=connector, idTag=id_tag
            )

        self._starts.append(asked)
        try:
            answer, started = await self._call_and_await_event(
                command, ask, TransactionStarted, ours
            )
        finally:
            asked.is_over = True
            here = [start for start in self._starts if start.charge_point_id == name]
            if all(start.is_over for start in here):  # until then others may hear of what it got
                for start in here:
                    self._starts.remove(start)
        if answer["status"] != "Accepted":
            return Done(answer)
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
            self.registry.connection(
                command.charge_point_id
            )  # NotConnected comes before NoTransaction
            return Done({"status": "Rejected", "reason": "NoTransaction"})

        def ours(event: Event) -> bool:
            return isinstance(event, TransactionSettled) and event.transaction_id == transaction_id

        async def ask() -> dict[str, Any]:
            return await self._call(command, "RemoteStopTransaction", transactionId=transaction_id)

        answer, settled = await self._call_and_await_event(command, ask, TransactionSettled, ours)
        if answer["status"] != "Accepted":
            return Done(answer)
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
        """End a transaction in our ledger that its charge point will not end, connected or not."""
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
                    fact = entry.event
                    if (
                        isinstance(fact, TransactionSettled)
                        and fact.transaction_id == transaction_id
                    ):
                        return Done({"status": "Closed", "receipt_id": fact.receipt["receipt_id"]})
        return Failed("Timeout", "accounting is behind: it will be closed when it has caught up")

    # --- what they share -------------------------------------------------------------------------

    async def _call(self, command: Command, action: str, /, **payload: Any) -> dict[str, Any]:
        connection = self.registry.connection(command.charge_point_id)
        if action == "RemoteStopTransaction":
            return await self._call_to_stop(connection, payload)
        return await connection.call(action, payload)

    async def _call_to_stop(
        self, connection: ChargePointConnection, payload: dict[str, Any]
    ) -> dict[str, Any]:
        """RemoteStopTransaction, noted for the stop that follows, which may not say why."""
        check_call("RemoteStopTransaction", payload)
        name, transaction_id = connection.charge_point_id, payload["transactionId"]
        connector = self.bus.fleet.connector_of(name, transaction_id)
        if transaction_id != self.bus.fleet.open_transaction(name, connector):
            return await connection.call("RemoteStopTransaction", payload)  # none that we know of
        wanted = RemoteStopRequested(
            charge_point_id=name,
            received_at=self.now(),
            transaction_id=transaction_id,
            connector_id=connector,
        )
        await self.bus.publish(wanted)
        accepted = False
        try:
            answer = await connection.call("RemoteStopTransaction", payload)
            accepted = answer["status"] == "Accepted"
            return answer
        finally:
            if not accepted:
                self.bus.publish_soon(attrs.evolve(wanted, received_at=self.now(), withdrawn=True))

    async def _call_and_await_event(
        self,
        command: Command,
        call: Callable[[], Awaitable[dict[str, Any]]],
        kind: type[Event],
        is_awaited: Callable[[Event], bool],
    ) -> tuple[dict[str, Any], Event | None]:
        """The answer, and the event that makes it true; None where none came in time.

        The event may come before the answer: charge points that authorise a remote start
        begin it first and answer then.
        """
        with self.bus.subscribe(kind, overflow=Overflow.DROP_OLDEST, capacity=10_000) as entries:
            answer = await call()
            if answer["status"] == "Accepted":
                with trio.move_on_after(self.remote_start_timeout_s):
                    async for entry in entries:
                        event = entry.event
                        if event.charge_point_id == command.charge_point_id and is_awaited(event):
                            return answer, event
        return answer, None

    def _id_tag(self, params: Any) -> str:
        if params is None or params == {}:
            if self.default_id_tag is None:
                raise _Invalid(
                    'no idTag: send {"idTag": "..."}, or configure [commands] default_id_tag'
                )
            return self.default_id_tag
        if isinstance(params, dict) and isinstance(params.get("idTag"), str):
            return str(params["idTag"])
        raise _Invalid('remoteStart takes {"idTag": "..."} or nothing')


def _for_people(payload: Any) -> Any:
    """An answer that could not be read, without its secrets; text where it was not JSON at all."""
    if isinstance(payload, str):
        return frame_without_secrets(payload)[:_MAX_SHOWN]
    return value_without_secrets(payload)


def _true_or_false(command: Command) -> bool:
    if isinstance(command.params, bool):
        return command.params
    raise _Invalid(f"{command.method} takes true or false")


def _minutes(params: Any) -> float:
    """How long a trace is to last; 0 to end it."""
    if params is None or params is True or params == {}:
        return _MINUTES
    if params is False:
        return 0.0
    minutes = params.get("minutes") if isinstance(params, dict) else None
    if isinstance(minutes, bool) or not isinstance(minutes, int | float):
        raise _Invalid('trace takes {"minutes": 10}, true or false')
    if not 0 <= minutes <= MAX_TRACE_S / 60:
        raise _Invalid(f"minutes must lie between 0 and {MAX_TRACE_S / 60:g}")
    return float(minutes)
