"""The ThingsBoard double: it serves MQTT clients on listeners and streams."""

from __future__ import annotations

from collections.abc import Sequence

import structlog
import trio

from .connection import MqttConnection
from .transport import Transport

log = structlog.get_logger(__name__)


class ThingsBoard(Transport):
    """ThingsBoard's MQTT transport, with the part of its core that a gateway can see.

    The arguments are those of Transport.
    port: where `serve_tcp` listens, None before.
    """

    port: int | None = None

    async def serve(
        self,
        listeners: Sequence[trio.abc.Listener[trio.abc.Stream]],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve clients of these listeners until cancelled; has started once it accepts."""
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, self.serve_stream, list(listeners))
            task_status.started()

    async def serve_tcp(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve clients on TCP until cancelled; starts with the port, which `port` shows too."""
        listeners = await trio.open_tcp_listeners(port, host=host)
        self.port = listeners[0].socket.getsockname()[1]
        async with trio.open_nursery() as nursery:
            await nursery.start(self.serve, listeners)
            task_status.started(self.port)

    async def serve_stream(self, stream: trio.abc.Stream) -> None:
        """Serve one client to the end of its connection; a fault ends this connection only."""
        connection = MqttConnection(self, stream)
        self._all_connections.add(connection)
        try:
            await connection.run()
        except Exception:  # one client's fault must not end the other connections
            log.exception("connection closed by a fault of the double")
        finally:
            self._all_connections.discard(connection)
            self.end_connection(connection)
            await trio.aclose_forcefully(stream)
