"""Records which functions of the gateway a real message passes, for docs/walks.md.

`python -m tests.walks` prints the three journeys as they are now: each function at its first call,
indented by how many functions of the gateway are on the stack above it.  `--json` is for the test.

The gateway is the real one with its SQLite file, its WebSocket and its MQTT connection; charge
point and ThingsBoard are simulated.  All of it runs in this process, so that one profile function
sees every call, threads included.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import attrs
import trio

import gateway
from gateway.cli.demo_gateway import start_gateway
from gateway.simulation.demo import TARIFFS
from gateway.simulation.thingsboard import ThingsBoard

from .fakes import FakeCharger, plug_in

ROOT = str(Path(gateway.__file__).parent) + "/"
NOT_WALKED = ("simulation/", "cli/")  # the furniture of the recording
TOKEN = "WALKS"
QUIET_S = 0.3  # after a message has arrived: its PUBACK and the checkpoint follow within it

Function = str
"""A function as the page names it: `southbound/connection.py ChargePointConnection.run`."""


Stack = tuple[Function, ...]
"""Functions of the gateway, the outermost first."""


@attrs.frozen
class Step:
    """A function that was called; stacks: what was above it, the first call's first."""

    function: Function
    stacks: list[Stack] = attrs.field(factory=list)


class Recorder:
    """A profile function: keeps what called each function, in the order of the first calls."""

    def __init__(self) -> None:
        self._steps: dict[Function, Step] = {}
        self._recording = False
        self._names: dict[CodeType, Function | None] = {}

    def start(self) -> None:
        self._steps, self._recording = {}, True

    def stop(self) -> list[Step]:
        self._recording = False
        return list(self._steps.values())

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        if not self._recording or event != "call":
            return
        function = self._name(frame.f_code)
        if function is None:
            return
        stack = tuple(reversed(list(self._above(frame))))
        step = self._steps.setdefault(function, Step(function))
        if stack not in step.stacks:
            step.stacks.append(stack)

    def _above(self, frame: FrameType) -> Iterable[Function]:
        above = frame.f_back
        while above is not None:
            function = self._name(above.f_code)
            if function is not None:
                yield function
            above = above.f_back

    def _name(self, code: CodeType) -> Function | None:
        if code not in self._names:
            path = code.co_filename
            inside = path.removeprefix(ROOT)
            ours = path.startswith(ROOT) and not inside.startswith(NOT_WALKED)
            hidden = code.co_qualname.endswith((">", "__"))  # lambdas, comprehensions, __init__
            self._names[code] = f"{inside} {code.co_qualname}" if ours and not hidden else None
        return self._names[code]


@attrs.frozen
class Scene:
    """A gateway that serves one charge point and has published all that was before."""

    board: ThingsBoard
    charger: FakeCharger

    async def published(self, device: str, key: str, value: Any = None) -> None:
        """Wait until ThingsBoard has the value (any, for None), and the gateway its PUBACK."""

        def arrived(board: ThingsBoard) -> bool:
            known = board.devices[device].value(key) if device in board.devices else None
            return known is not None and value in (None, known)

        await self.board.wait_for(arrived)
        await trio.sleep(QUIET_S)


@asynccontextmanager
async def open_scene() -> AsyncIterator[Scene]:
    board = ThingsBoard(access_tokens=[TOKEN])
    with tempfile.TemporaryDirectory() as folder:
        async with trio.open_nursery() as nursery:
            mqtt_port = await nursery.start(board.serve_tcp, "127.0.0.1", 0)
            port = await start_gateway(
                nursery,
                mqtt_port=mqtt_port,
                access_token=TOKEN,
                folder=Path(folder),
                tariffs=TARIFFS,
            )
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            async with plug_in(stream, "CP-1") as charger:
                await charger.boot()
                for connector in (1, 2):
                    await charger.status("Preparing", connector)
                await board.wait_for(lambda board: "CP-1/2" in board.devices)
                yield Scene(board, charger)
            nursery.cancel_scope.cancel()


async def meter_values(scene: Scene, tx: int) -> None:
    await scene.charger.sample(tx, "1500")
    await scene.published("CP-1/1", "tx_energy_wh", 500)


async def remote_start(scene: Scene) -> None:
    """ThingsBoard's RPC, the charge point's answer, and its StartTransaction."""

    async def obey() -> None:
        unique_id, _, _ = await scene.charger.next_call()
        await scene.charger.reply(unique_id, status="Accepted")
        await scene.charger.start(0, connector=2)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(obey)
        answer = await scene.board.rpc("CP-1/2", "remoteStart", {"idTag": "TAG"})
        assert answer["status"] == "Accepted", answer
    await trio.sleep(QUIET_S)


async def stop_transaction(scene: Scene, tx: int) -> None:
    await scene.charger.stop(tx, 2_000)
    await scene.published("CP-1/1", "receipt")


async def record() -> dict[str, list[Step]]:
    """The three journeys."""
    recorder = Recorder()
    threading.setprofile(recorder)
    sys.setprofile(recorder)
    journeys: dict[str, list[Step]] = {}
    try:
        async with open_scene() as scene:
            tx = await scene.charger.start(1_000)
            await scene.published("CP-1/1", "tx_id", tx)
            for name, journey in (
                ("MeterValues to MQTT", meter_values(scene, tx)),
                ("remoteStart and back", remote_start(scene)),
                ("StopTransaction to receipt", stop_transaction(scene, tx)),
            ):
                recorder.start()
                await journey
                journeys[name] = recorder.stop()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
    return journeys


def as_tree(steps: Iterable[Step]) -> str:
    return "\n".join(f"{'  ' * len(step.stacks[0])}{step.function}" for step in steps)


def depth(steps: Iterable[Step], outer: Function, inner: Function) -> int:
    """Functions of the gateway from `outer` down to `inner`, both counted.  Raises LookupError."""
    for step in steps:
        for stack in step.stacks:
            if step.function == inner and outer in stack:
                return len(stack) - stack.index(outer) + 1
    raise LookupError(f"{inner} is not called below {outer}")


def modules(steps: Iterable[Step]) -> set[str]:
    return {step.function.partition(" ")[0] for step in steps}


def main() -> None:
    journeys = trio.run(record)
    if "--json" in sys.argv:
        print(
            json.dumps(
                {name: [attrs.astuple(step) for step in steps] for name, steps in journeys.items()}
            )
        )
        return
    for name, steps in journeys.items():
        print(f"\n## {name}: {len(modules(steps))} modules\n\n{as_tree(steps)}")


if __name__ == "__main__":
    main()
