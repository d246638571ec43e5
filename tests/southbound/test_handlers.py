"""A request's way from the socket to the journal."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import gateway
from gateway.domain.events import MeterSampled
from gateway.southbound.messages import CHARGE_POINT_ACTIONS
from tests.memory_journal import MemoryJournal

from ..conftest import open_gateway

CODE = str(Path(gateway.__file__).parent)
MAX_FRAMES = 7


class StackJournal(MemoryJournal):
    """Notes which functions of the gateway have led to the append of a MeterValues."""

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []

    async def append(self, *events: Any, checkpoint: Any = None) -> Any:
        if any(isinstance(event, MeterSampled) for event in events):
            self.stack = [
                frame.function for frame in inspect.stack() if frame.filename.startswith(CODE)
            ][::-1]
        return await super().append(*events, checkpoint=checkpoint)


async def test_few_functions_lie_between_a_charge_points_socket_and_the_journal():
    """The fewer there are, the sooner a reader has found what a request leads to."""
    journal = StackJournal()
    async with open_gateway(journal=journal) as gateway, gateway.charger("CP-1") as charger:
        await charger.boot()
        await charger.sample(None, "100")
    assert "on_meter_values" in journal.stack
    assert len(journal.stack) <= MAX_FRAMES, journal.stack


def test_every_action_of_a_charge_point_has_a_handler_of_its_own_name():
    """So that `grep on_meter_values` finds what answers MeterValues."""
    code = (Path(CODE) / "southbound" / "handlers.py").read_text()
    for action in CHARGE_POINT_ACTIONS:
        name = "".join(f"_{char.lower()}" if char.isupper() else char for char in action)
        assert f'"{action}": self.on{name},' in code
