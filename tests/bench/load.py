"""A load generator cheap enough not to be the limit; see `load_generator` for what it sends.

It runs in a process of its own and says its result as one JSON line on stdout.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import time
from array import array
from collections.abc import Callable
from pathlib import Path

from .load_generator import Load, Process
from .messages import (  # fmt: skip
    BEGIN,
    END,
    METER_ONLY,
)


def milliseconds(seconds: array[float] | list[float]) -> dict[str, float]:
    """p50, p99 and p99.9 of durations."""
    ordered = sorted(seconds)
    if not ordered:
        return {}
    places = {"p50_ms": 0.5, "p99_ms": 0.99, "p999_ms": 0.999}
    last = len(ordered) - 1
    return {name: round(ordered[int(last * q)] * 1e3, 3) for name, q in places.items()}


def measure(load: Load, server: Process, run: Callable[[], None]) -> dict[str, object]:
    """Run under measurement: requests answered, their latencies, the server's and our CPU."""
    answered, server_cpu, own_cpu = load.answered, server.cpu_s(), time.process_time()
    resident = server.resident_bytes()
    began = time.perf_counter()
    load.measuring = True
    run()
    load.measuring = False
    took = time.perf_counter() - began
    grown = server.resident_bytes() - resident
    answered = load.answered - answered
    every = [value for values in load.latencies.values() for value in values]
    used = server.cpu_s() - server_cpu
    return {
        "requests": answered,
        "seconds": round(took, 3),
        "requests_per_s": round(answered / took, 1),
        **milliseconds(every),
        "cpu_us_per_request": round(used / max(answered, 1) * 1e6, 1),
        "cpu_share": round(used / took, 3),
        "grown_mib": round(grown / 2**20, 1),
        "load_us_per_request": round((time.process_time() - own_cpu) / max(answered, 1) * 1e6, 1),
        "by_action": {
            action: {"requests": len(values), **milliseconds(values)}
            for action, values in load.latencies.items()
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.load", description=__doc__)
    parser.add_argument("--url", required=True, help="ws://HOST:PORT/PATH before the charger's id")
    parser.add_argument("--mode", choices=["session", "meter", "idle"], default="session")
    parser.add_argument("--chargers", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--warm-up", type=float, default=1.0)
    parser.add_argument("--rate", type=float, help="open loop: requests/s; without it closed")
    parser.add_argument("--steps", type=int, nargs="+", help="idle: numbers of connections")
    parser.add_argument("--in-flight", type=int, default=100, help="connections made at a time")
    parser.add_argument("--prefix", default="BENCH")
    parser.add_argument("--server-pid", type=int, default=0)
    parser.add_argument("--fixed-reply", action="store_true")
    parser.add_argument("--record", type=Path, help="where to write what was answered, and when")
    options = parser.parse_args()

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    gc.disable()  # nothing here is cyclic, and a collection would show as the server's latency
    server = Process(options.server_pid)
    load = Load(
        options.url,
        options.prefix,
        fixed_reply=options.fixed_reply,
        record=options.record is not None,
    )
    result = idle(load, server, options) if options.mode == "idle" else busy(load, server, options)
    load.close()
    if options.record is not None:
        load.write_record(options.record)
    result |= {"sent": load.sent, "errors": load.errors, "first_error": load.first_error}
    print(json.dumps(result), flush=True)
    return 1 if load.errors and not load.answered and options.mode != "idle" else 0


def busy(load: Load, server: Process, options: argparse.Namespace) -> dict[str, object]:
    """Requests, closed loop or at a rate; what was begun is ended after the measurement."""
    load.connect(options.chargers, options.in_flight)
    if options.mode == "meter":
        load.play(BEGIN)
        load.script = METER_ONLY
    load.spread()

    def run(seconds: float) -> None:
        if options.rate:
            load.paced(options.rate, seconds)
        else:
            load.closed(seconds)

    run(options.warm_up)
    result = measure(load, server, lambda: run(options.seconds))
    load.finish()
    if options.mode == "meter":
        load.play(END)
    result["ended_at"] = time.time()
    return result


def idle(load: Load, server: Process, options: argparse.Namespace) -> dict[str, object]:
    """Connections held open, in steps; resident bytes of the server at each."""
    before = server.resident_bytes()
    steps = []
    for count in options.steps or [options.chargers]:
        cpu = server.cpu_s()
        more = count - len(load.chargers)
        seconds = load.connect(more, options.in_flight)
        cpu = server.cpu_s() - cpu
        load.hold(options.seconds)
        grown = server.resident_bytes() - before
        steps.append(
            {
                "connections": load.open,
                "seconds": round(seconds, 3),
                "connections_per_s": round(more / seconds, 1),
                "cpu_us_per_connection": round(cpu / more * 1e6, 1),
                "bytes_per_connection": round(grown / max(load.open, 1)),
                "resident_bytes": before + grown,
            }
        )
    return {"steps": steps, "resident_bytes_before": before}


if __name__ == "__main__":
    raise SystemExit(main())
