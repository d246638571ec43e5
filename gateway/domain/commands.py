"""What is asked of a charge point, and how that ended.  Frozen, like the events."""

from __future__ import annotations

from typing import Any

import attrs


@attrs.frozen(kw_only=True)
class Command:
    """One command of an operator.

    connector_id: 0 for a command to the charge point itself.
    method: an OCPP action, or one of the connector's (`remoteStart`, `setCharging`, ...).
    params: the JSON value that came with it.
    """

    charge_point_id: str
    connector_id: int = 0
    method: str
    params: Any = None


@attrs.frozen
class Done:
    """The charge point answered, yes or no.  payload: the RPC's answer."""

    payload: dict[str, Any]

    @property
    def result(self) -> str:
        """The charge point's own status where it gave one."""
        status = self.payload.get("status")
        return status if isinstance(status, str) else "Accepted"


@attrs.frozen
class Failed:
    """It could not be carried out, or it is not known whether it was.

    code: NotConnected, Timeout, InvalidParams, UnknownMethod, CallError or Busy.
    ocpp_code, details: of the charge point's CALLERROR, for CallError.
    """

    code: str
    message: str
    ocpp_code: str | None = None
    details: Any = None

    @property
    def result(self) -> str:
        return self.code

    @property
    def payload(self) -> dict[str, Any]:
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.code == "CallError":
            error |= {"ocpp_code": self.ocpp_code, "details": self.details}
        return {"error": error}


CommandOutcome = Done | Failed
