"""Long computations, made in a thread while the event loop serves others.

One at a time: several threads that compute would take the interpreter from the loop in turn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import trio

T = TypeVar("T")

run_in_thread = trio.to_thread.run_sync
_one_at_a_time = trio.CapacityLimiter(1)


async def offload(compute: Callable[[], T]) -> T:
    """What a function gives that changes nothing and looks at nothing that changes meanwhile.

    Cancelled, it waits for the end of the computation all the same.
    """
    return await run_in_thread(compute, limiter=_one_at_a_time)
