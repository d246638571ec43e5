"""ThingsBoard's RPC on the gateway API, as values: payload -> Rpc, outcome -> answer.  Pure."""

from __future__ import annotations

from typing import Any

import attrs
import msgspec

from ..domain import json_codec
from ..domain.commands import Command, CommandOutcome
from ..domain.fleet import split_name
from .mqtt import Publication

RPC_TOPIC = "v1/gateway/rpc"


@attrs.frozen
class RpcRequest:
    """id: ThingsBoard's, per device, from 0 on; used again after a restart of ThingsBoard."""

    device: str
    id: int
    method: str
    params: Any

    @property
    def key(self) -> tuple[str, int, str, bytes]:
        """Equal for a request that is delivered again (thingsboard-contract R8)."""
        return self.device, self.id, self.method, json_codec.encode(self.params)


class RpcError(Exception):
    """A message that asks for nothing that could be answered."""


def read_rpc(payload: bytes) -> RpcRequest | None:
    """The request in a message; None for an echo of our own answer, as a plain broker gives.

    Raises RpcError.
    """
    try:
        message = json_codec.decode(payload)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as exc:
        raise RpcError(f"not JSON: {str(exc)[:80]}") from exc
    if not isinstance(message, dict):
        raise RpcError("not a JSON object")
    if "id" in message and "device" in message:
        return None
    device, data = message.get("device"), message.get("data")
    if not isinstance(device, str) or not isinstance(data, dict):
        raise RpcError("no device or no data")
    rpc_id, method = data.get("id"), data.get("method")
    if isinstance(rpc_id, bool) or not isinstance(rpc_id, int):
        raise RpcError("no id to answer to")
    if not isinstance(method, str):
        raise RpcError("no method")
    return RpcRequest(device, rpc_id, method, data.get("params"))


def command_of(rpc: RpcRequest) -> Command | None:
    """The command that an RPC asks for; None for a device that takes none."""
    name = split_name(rpc.device)
    if name is None:
        return None
    charge_point_id, connector_id = name
    return Command(
        charge_point_id=charge_point_id,
        connector_id=connector_id,
        method=rpc.method,
        params=rpc.params,
    )


def response_message(rpc: RpcRequest, outcome: CommandOutcome) -> Publication:
    body = {"device": rpc.device, "id": rpc.id, "data": outcome.payload}
    return Publication(RPC_TOPIC, json_codec.encode(body))
