"""A charge point that shares no code with the gateway: asyncio, `websockets`, and the `ocpp`
package's own ChargePoint.  A script, run in a process of its own.

    independent_charger.py ws://127.0.0.1:9000/ocpp CP-1 [--password P] [--ca FILE] [--cert FILE]

It obeys remote commands by itself, as a charge point does: RemoteStartTransaction begins a
charge, RemoteStopTransaction ends it.  What else it sends is given on stdin, one JSON list a
line: `["Heartbeat", {}]` sends that CALL (keys as in Python), `["close"]` ends it.  What happens
it reports on stdout, one JSON object a line: `connected`, `answer` (to a CALL of its own),
`refused`, `called` (a CALL of the central system), `closed` with the code, `not_connected`.
After a loss it connects again, without BootNotification.
"""

import argparse
import asyncio
import base64
import json
import logging
import ssl
import sys
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

from ocpp.exceptions import OCPPError
from ocpp.routing import after, on
from ocpp.v16 import ChargePoint, call, call_result
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

METER_START, METER_MIDDLE, METER_STOP = 100_000, 103_250, 107_777  # Wh
POWER_W, CURRENT_A, VOLTAGE_V = 11_040, 16, 230


def report(event, **more):
    print(json.dumps({"event": event, **more}, default=str), flush=True)


def stamp(at):
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


class Charger(ChargePoint):
    transaction_id = None
    id_tag = None
    began = None

    async def ask(self, action, **payload):
        """Send a CALL, tell how it ended, and give the answer; None for a CALLERROR."""
        try:
            answer = await self.call(getattr(call, action)(**payload), suppress=False)
        except OCPPError as exc:
            report("refused", action=action, code=exc.code, why=exc.description)
            return None
        report("answer", action=action, payload=asdict(answer))
        return answer

    # --- a charge, as ordered from afar ---

    @on("RemoteStartTransaction")
    def on_remote_start(self, **payload):
        report("called", action="RemoteStartTransaction", payload=payload)
        free = self.transaction_id is None
        return call_result.RemoteStartTransaction(status="Accepted" if free else "Rejected")

    @after("RemoteStartTransaction")
    async def begin(self, id_tag, connector_id=1, **_):
        if self.transaction_id is not None:
            return
        self.id_tag = id_tag
        # It began 30 minutes ago by its own clock, so that a charge takes no time in a test.
        self.began = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=30)
        await self.ask("Authorize", id_tag=id_tag)
        await self.status("Preparing", self.began)
        started = await self.ask(
            "StartTransaction",
            connector_id=connector_id,
            id_tag=id_tag,
            meter_start=METER_START,
            timestamp=stamp(self.began),
        )
        self.transaction_id = started.transaction_id
        await self.status("Charging", self.began)
        await self.sample(METER_MIDDLE, self.began + timedelta(minutes=15))

    @on("RemoteStopTransaction")
    def on_remote_stop(self, transaction_id, **_):
        report("called", action="RemoteStopTransaction", payload={"transaction_id": transaction_id})
        ours = transaction_id == self.transaction_id
        return call_result.RemoteStopTransaction(status="Accepted" if ours else "Rejected")

    @after("RemoteStopTransaction")
    async def end(self, transaction_id, **_):
        if transaction_id != self.transaction_id:
            return
        ended = self.began + timedelta(minutes=30)
        self.transaction_id = None
        await self.ask(
            "StopTransaction",
            transaction_id=transaction_id,
            meter_stop=METER_STOP,
            timestamp=stamp(ended),
            id_tag=self.id_tag,
            reason="Remote",
        )
        await self.status("Finishing", ended)
        await self.status("Available", ended)

    async def status(self, status, at):
        await self.ask(
            "StatusNotification",
            connector_id=1,
            error_code="NoError",
            status=status,
            timestamp=stamp(at),
        )

    async def sample(self, register_wh, at):
        def value(value, measurand, unit, **more):
            return {"value": str(value), "measurand": measurand, "unit": unit, **more}

        values = [
            value(register_wh, "Energy.Active.Import.Register", "Wh"),
            value(POWER_W, "Power.Active.Import", "W"),
            *(value(CURRENT_A, "Current.Import", "A", phase=f"L{n}") for n in (1, 2, 3)),
            *(value(VOLTAGE_V, "Voltage", "V", phase=f"L{n}-N") for n in (1, 2, 3)),
        ]
        await self.ask(
            "MeterValues",
            connector_id=1,
            transaction_id=self.transaction_id,
            meter_value=[{"timestamp": stamp(at), "sampled_value": values}],
        )

    # --- the rest of what a central system may ask ---

    @on("GetConfiguration")
    def on_get_configuration(self, key=None, **_):
        known = {"HeartbeatInterval": "300", "NumberOfConnectors": "1"}
        report("called", action="GetConfiguration", payload={"key": key})
        found = [
            {"key": name, "readonly": False, "value": known[name]}
            for name in (key or known)
            if name in known
        ]
        return call_result.GetConfiguration(
            configuration_key=found, unknown_key=[name for name in key or () if name not in known]
        )

    @on("Reset")
    def on_reset(self, type, **_):  # noqa: A002 - the schema's name
        report("called", action="Reset", payload={"type": type})
        return call_result.Reset(status="Accepted")

    @on("TriggerMessage")
    def on_trigger(self, requested_message, **_):
        report("called", action="TriggerMessage", payload={"requested": requested_message})
        wanted = requested_message == "Heartbeat"
        return call_result.TriggerMessage(status="Accepted" if wanted else "NotImplemented")

    @after("TriggerMessage")
    async def send_triggered(self, requested_message, **_):
        if requested_message == "Heartbeat":
            await self.ask("Heartbeat")

    @on("UnlockConnector")
    def on_unlock(self, **_):
        return call_result.UnlockConnector(status="Unlocked")

    @on("ChangeAvailability")
    def on_availability(self, **_):
        return call_result.ChangeAvailability(status="Accepted")

    @on("ChangeConfiguration")
    def on_change_configuration(self, **_):
        return call_result.ChangeConfiguration(status="RebootRequired")


async def send_commands(charger, commands):
    """Carry out what stdin says, for the connection that there is."""
    while True:
        action, *payload = await commands.get()
        if action == "close":
            raise SystemExit(0)
        await charger.ask(action, **(payload[0] if payload else {}))


async def read_stdin(commands):
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=2**20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        await commands.put(json.loads(line))
    await commands.put(["close"])


async def live(options):
    commands = asyncio.Queue()
    reading = asyncio.create_task(read_stdin(commands))
    headers = {}
    if options.password is not None:
        basic = base64.b64encode(f"{options.id}:{options.password}".encode()).decode()
        headers["Authorization"] = f"Basic {basic}"
    tls = ssl.create_default_context(cafile=options.ca) if options.ca else None
    if options.cert is not None:
        tls.load_cert_chain(options.cert)
    memory = {}
    while not reading.done():
        try:
            async with connect(
                f"{options.url}/{options.id}",
                subprotocols=["ocpp1.6"],
                additional_headers=headers,
                ssl=tls,
                open_timeout=5,
            ) as socket:
                report("connected", subprotocol=socket.subprotocol)
                charger = Charger(options.id, socket)
                charger.__dict__.update(memory)
                obeying = asyncio.create_task(send_commands(charger, commands))
                serving = asyncio.create_task(charger.start())
                await asyncio.wait({obeying, serving}, return_when=asyncio.FIRST_COMPLETED)
                for task in (obeying, serving):
                    task.cancel()
                ended = await asyncio.gather(obeying, serving, return_exceptions=True)
                memory = {
                    name: getattr(charger, name) for name in ("transaction_id", "id_tag", "began")
                }
                for exc in ended:
                    if not isinstance(exc, ConnectionClosed | asyncio.CancelledError):
                        raise exc
            report("closed", code=socket.close_code, reason=socket.close_reason)
        except (OSError, InvalidHandshake, TimeoutError) as exc:
            status = getattr(getattr(exc, "response", None), "status_code", None)
            report("not_connected", why=str(exc), status=status)
        await asyncio.sleep(0.1)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("id")
    parser.add_argument("--password")
    parser.add_argument("--ca", help="who signs the central system's certificate")
    parser.add_argument("--cert", help="its own certificate with its key")
    logging.basicConfig(level=logging.CRITICAL)
    asyncio.run(live(parser.parse_args()))


if __name__ == "__main__":
    main()
