"""`make bench`: the gateway's speed, beside its peers, as one JSON line per figure on stdout.

    python -m tests.bench [--quick] [--only PART ...]

Remarks for people go to stderr.  A figure that cannot be had here says why: {"skipped": …}.
Servers take turns within a round, each started afresh, because a machine's speed drifts: ratios
are medians over rounds of what stood side by side.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import attrs

from . import processes
from .figures import at_least, below, figure, remark, skipped
from .processes import Skipped
from .runs import (
    CHARGE_POINT,
    ECHO,
    GATEWAY,
    OCPP_RPC,
    SERVERS,
    errors_of,
    median,
    metrics,
    not_arrived,
    rows_per_commit,
    run,
)

_STARTED = 12.0  # seconds after which the gateway has published all of its start
#: What the Node-RED prototype was measured to answer: MeterValues only, 50 chargers, closed loop.
NODE_RED_REQUESTS_PER_S = 1857


@attrs.frozen(kw_only=True)
class Pace:
    """How long things are measured.  north_limit: seconds that late telemetry is waited for."""

    rounds: int
    warm_up: float
    window: float
    north_limit: float
    open_loop: float
    north: float
    outage: float
    memory_of: tuple[str, ...]


THOROUGH = Pace(
    rounds=4, warm_up=1.5, window=5.0, north_limit=5.0, open_loop=15.0, north=60.0, outage=60.0,
    memory_of=(GATEWAY, CHARGE_POINT, OCPP_RPC),
)  # fmt: skip
QUICK = Pace(
    rounds=1, warm_up=0.7, window=2.0, north_limit=2.0, open_loop=3.0, north=4.0, outage=6.0,
    memory_of=(GATEWAY,),
)  # fmt: skip


# --- the parts --------------------------------------------------------------------------------


def closed(folder: Path, port: int, pace: Pace) -> None:
    """The session mix at 100 chargers, closed loop, all servers in turn."""
    results: dict[str, list[dict]] = {name: [] for name in SERVERS}
    why: dict[str, Skipped] = {}
    for turn in range(pace.rounds):
        # another order each round, so that nobody always comes after the same one
        for name in [*SERVERS][turn % len(SERVERS) :] + [*SERVERS][: turn % len(SERVERS)]:
            if name in why:
                continue
            arguments = ["--chargers", 100, "--warm-up", pace.warm_up, "--seconds", pace.window]
            try:
                result = run(name, folder, port, pace.north_limit, *arguments)
            except Skipped as reason:
                why[name] = reason
                results[name].clear()
                continue
            results[name].append(result)
            remark(f"round {turn + 1}: {name} {result['requests_per_s']:.0f} requests/s")
    for name, all_of in results.items():
        if all_of:
            print_closed_loop(name, all_of)
        else:
            skipped(f"{name}.requests_per_s", why[name])
    print_ratio("ratio.to_websockets_ocpp_aiomqtt", results, CHARGE_POINT, why, 4.0)
    print_ratio("ratio.to_ocpp_rpc", results, OCPP_RPC, why, 0.6)
    print_ratio("share.of_trio_websocket_echo", results, ECHO, why, None)
    print_commits(results[GATEWAY], why.get(GATEWAY))


def print_closed_loop(name: str, results: list[dict]) -> None:
    mix = "session mix, closed loop, 100 chargers"
    rate = median(results, "requests_per_s")
    rounds = [result["requests_per_s"] for result in results]
    more = {"rounds": rounds, "errors": errors_of(results)}
    more["server_cpu_share"] = median(results, "cpu_share")
    figure(f"{name}.requests_per_s", rate, "1/s", mix, **more)
    figure(f"{name}.p50_ms", median(results, "p50_ms"), "ms", f"latency, {mix}")
    figure(f"{name}.p99_ms", median(results, "p99_ms"), "ms", f"latency, {mix}")
    figure(
        f"{name}.cpu_us_per_request",
        median(results, "cpu_us_per_request"),
        "us",
        "CPU of the server process, user and system, while the load ran",
        load_us_per_request=median(results, "load_us_per_request"),
    )
    if name != ECHO:
        print_arrival(name, results)


def print_arrival(name: str, results: list[dict], prefix: str = "") -> None:
    events, arrived = (sum(result[key] for result in results) for key in ("events", "arrived"))
    share = round(arrived / events, 5) if events else 0.0
    kinds = {
        kind: [sum(result["by_kind"][kind][place] for result in results) for place in (0, 1)]
        for kind in results[0]["by_kind"]
    }
    more = {"north": results[-1]["north"]} if "north" in results[-1] else {}
    if name == GATEWAY:
        more |= {"target": ">= 1", "met": 0 < events == arrived}
    figure(
        f"{prefix}{name}.events_arrived_share",
        share,
        "1",
        "events that an MQTT subscriber got, of those answered; by action [answered, arrived]",
        answered=events,
        arrived=arrived,
        by_action=kinds,
        **more,
    )
    figure(
        f"{prefix}{name}.events_lag_s",
        max(result["lag_s"] for result in results),
        "s",
        "from the last answer to the last arrival at the subscriber, the worst round",
        still_behind=any(result["behind"] for result in results),
    )


def print_ratio(
    name: str, results: dict[str, list[dict]], peer: str, why: dict, target: float | None
) -> None:
    for one in (GATEWAY, peer):
        if not results[one]:
            skipped(name, why[one])
            return
    pairs = list(zip(results[GATEWAY], results[peer], strict=True))
    ratios = [round(ours["requests_per_s"] / theirs["requests_per_s"], 3) for ours, theirs in pairs]
    value = round(statistics.median(ratios), 3)
    # What was answered and not published does not count as reached.
    wrong = errors_of(results[GATEWAY]) + not_arrived(results[GATEWAY])
    cpu = [theirs["cpu_us_per_request"] / ours["cpu_us_per_request"] for ours, theirs in pairs]
    figure(
        name,
        value,
        "1",
        f"our requests/s over those of {peer}, same round, median",
        rounds=ratios,
        by_cpu=round(statistics.median(cpu), 3),
        **({} if target is None else at_least(target, value, wrong)),
    )


def print_commits(results: list[dict], why: Skipped | None) -> None:
    name = "gateway.journal_rows_per_commit"
    rows = [value for result in results if (value := rows_per_commit(result["metrics"]))]
    if rows:
        figure(name, round(statistics.median(rows), 2), "rows", "group commit, 100 chargers")
    else:
        skipped(name, why or "/metrics does not tell rows and commits")


def nodered(folder: Path, port: int, pace: Pace) -> None:
    """MeterValues only, 50 chargers: what the Node-RED prototype was measured at."""
    results = []
    for _ in range((pace.rounds + 1) // 2):  # the stated figure is good to no more than this
        arguments = ["--mode", "meter", "--chargers", 50]
        arguments += ["--warm-up", pace.warm_up, "--seconds", pace.window]
        results.append(run(GATEWAY, folder, port, pace.north_limit, *arguments))
    rate = median(results, "requests_per_s")
    what = "MeterValues only, closed loop, 50 chargers, each in one transaction"
    figure("meter_values.requests_per_s", rate, "1/s", what)
    cpu = median(results, "cpu_us_per_request")
    figure("meter_values.cpu_us_per_request", cpu, "us", what)
    ratio = round(rate / NODE_RED_REQUESTS_PER_S, 3)
    wrong = errors_of(results) + not_arrived(results)
    stated = f"over the {NODE_RED_REQUESTS_PER_S} requests/s stated for the Node-RED prototype"
    figure("ratio.to_node_red", ratio, "1", stated, **at_least(2.5, ratio, wrong))
    print_arrival(GATEWAY, results, "meter_values.")


def connections(folder: Path, port: int, pace: Pace) -> None:
    """Connect, boot and stay: seconds for 1,000, memory at 1,000 and 5,000."""
    for name in pace.memory_of:
        try:
            with SERVERS[name](folder, port) as server:
                arguments = ["--mode", "idle", "--steps", 1000, 5000, "--seconds", 2]
                result = processes.load(server, folder, *arguments)
        except Skipped as reason:
            skipped(f"{name}.idle_connection_kib_at_5000", reason)
            continue
        for step, count in zip(result["steps"], (1000, 5000), strict=True):
            if step["connections"] < count:
                connected = f"{step['connections']} of {count} connected: {result['first_error']}"
                skipped(f"{name}.idle_connection_kib_at_{count}", connected)
                continue
            kib = round(step["bytes_per_connection"] / 1024, 2)
            ours = name == GATEWAY
            figure(
                f"{name}.idle_connection_kib_at_{count}",
                kib,
                "KiB",
                "resident memory per idle connection, booted",
                resident_mib=round(step["resident_bytes"] / 2**20, 1),
                connected=step["connections"],
                **(below(32, kib) if ours and count == 5000 else {}),
            )
        first = result["steps"][0]
        if first["connections"] < 1000:
            skipped(f"{name}.connect_and_boot_1000_s", result["first_error"])
            continue
        figure(
            f"{name}.connect_and_boot_1000_s",
            first["seconds"],
            "s",
            "1,000 chargers connect and boot, 100 at a time",
            cpu_us_per_connection=first["cpu_us_per_connection"],
            **(below(3, first["seconds"]) if name == GATEWAY else {}),
        )


def starts(folder: Path, port: int, pace: Pace) -> None:
    """StartTransaction's answer, which waits for the disk, at 1,000 requests/s of the mix."""
    arguments = ["--rate", 1000, "--chargers", 1000]
    # A plain broker never tells its limits: what has gathered while they are awaited is published
    # in one go after 5 s, which is a start and not how it goes on.
    arguments += ["--warm-up", pace.warm_up + _STARTED, "--seconds", pace.open_loop]
    result = run(GATEWAY, folder, port, pace.north_limit, *arguments)
    begun = result["by_action"].get("StartTransaction")
    if begun is None:
        raise Skipped("no StartTransaction was answered")
    what = "StartTransaction, 1,000 requests/s open loop, 1,000 chargers, from the intended time"
    figure("start_transaction.p50_ms", begun["p50_ms"], "ms", what, requests=begun["requests"])
    p99 = begun["p99_ms"]
    verdict = below(10, p99, result["errors"])
    verdict["achieved_requests_per_s"] = result["requests_per_s"]
    figure("start_transaction.p99_ms", p99, "ms", what, **verdict)
    every = "every request of the mix, 1,000 requests/s open loop"
    figure("open_loop.p50_ms", result["p50_ms"], "ms", every)
    figure("open_loop.p99_ms", result["p99_ms"], "ms", every)
    figure("open_loop.cpu_share", result["cpu_share"], "1", every)
    print_arrival(GATEWAY, [result], "open_loop.")


def north(folder: Path, port: int, pace: Pace) -> None:
    """1,500 MeterValues/s: the north must not fall behind."""
    arguments = ["--mode", "meter", "--rate", 1500, "--chargers", 1000]
    arguments += ["--warm-up", pace.warm_up, "--seconds", pace.north]
    result = run(GATEWAY, folder, port, pace.north_limit, *arguments)
    what = f"1,500 MeterValues/s open loop for {pace.north:.0f} s, 1,000 chargers"
    figure("north.achieved_requests_per_s", result["requests_per_s"], "1/s", what)
    figure("north.p99_ms", result["p99_ms"], "ms", what)
    figure("north.cpu_share", result["cpu_share"], "1", what)
    print_arrival(GATEWAY, [result], "north.")


def outage(folder: Path, _port: int, pace: Pace) -> None:
    """An hour without ThingsBoard at one MeterValues a minute: memory, disk, and catching up."""
    port = processes.free_port()
    arguments = [
        "--mode",
        "meter",
        "--rate",
        1000,
        "--chargers",
        1000,
        "--warm-up",
        pace.outage / 6,
    ]
    with processes.gateway(folder, port) as server:
        result = processes.load(server, folder, *arguments, "--seconds", pace.outage)
        what = f"{result['requests']} MeterValues of 1,000 chargers while MQTT is away"
        verdict = below(50, result["grown_mib"], result["errors"])
        figure("outage.memory_grown_mib", result["grown_mib"], "MiB", what, **verdict)
        files = server.store.parent.glob(f"{server.store.name}*")
        size = sum(file.stat().st_size for file in files) / result["sent"]["MeterValues"]
        figure("outage.disk_per_meter_values_bytes", round(size), "B", "10 samples, priced")
        behind = metrics(server)["ocpp_gateway_north_lag_entries"]
        began = time.monotonic()
        with processes.mosquitto(folder, port):
            while metrics(server).get("ocpp_gateway_north_lag_entries", 0.0) > 0:
                if time.monotonic() - began > 120:
                    raise Skipped("the backlog was not delivered in 120 s")
                time.sleep(0.2)
            took = time.monotonic() - began
        what = "a backlog published to a broker that came back, its reconnect included"
        rate = round(behind / took, 1)
        figure("outage.caught_up_entries_per_s", rate, "1/s", what, entries=behind, seconds=took)


def micro(folder: Path, _port: int, pace: Pace) -> None:
    """Pure calls in a process of their own: decode to event, pricing."""
    command = [sys.executable, "-m", "tests.bench.micro", "--seconds", str(pace.window / 2)]
    log = folder / "micro.log"
    with processes.running(command, processes.SERVER_CORE, log) as process:
        output, _ = process.communicate(timeout=120)
    for line in output.decode().splitlines():
        print(line, flush=True)
    if process.returncode:
        why = log.read_text(errors="replace").strip()[-300:]
        for name in PARTS["micro"][1]:
            if name not in output.decode():
                skipped(name, why)


def disk(folder: Path, _port: int, _pace: Pace) -> None:
    """What making a row durable costs here at best: other figures rest on it."""
    times = []
    with (folder / "fdatasync").open("wb", buffering=0) as file:
        for _ in range(200):
            file.write(bytes(4096))
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - began)
    times.sort()
    what = "write 4 KiB and fdatasync in the folder that the store lies in"
    p99 = round(times[198] * 1e3, 3)
    figure("disk.fdatasync_p50_ms", round(times[100] * 1e3, 3), "ms", what, p99_ms=p99)


#: Each with the chief figures that it gives, which say why when the part cannot be had.
PARTS: dict[str, tuple[Callable[[Path, int, Pace], None], tuple[str, ...]]] = {
    "disk": (disk, ("disk.fdatasync_p50_ms",)),
    "micro": (
        micro,
        (
            "micro.meter_values_to_event_us",
            "micro.price_meter_values_us",
            "micro.price_meter_values_12_us",
        ),
    ),
    "closed": (closed, ("gateway.requests_per_s",)),
    "nodered": (nodered, ("meter_values.requests_per_s", "ratio.to_node_red")),
    "starts": (starts, ("start_transaction.p50_ms", "start_transaction.p99_ms")),
    "connections": (connections, ("gateway.idle_connection_kib_at_5000",)),
    "north": (north, ("north.gateway.events_arrived_share", "north.gateway.events_lag_s")),
    "outage": (outage, ("outage.memory_grown_mib", "outage.caught_up_entries_per_s")),
}
NEED_NO_BROKER = ("disk", "micro")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="about a minute instead of five")
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", help=", ".join(PARTS))
    options = parser.parse_args()
    pace = QUICK if options.quick else THOROUGH
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if processes.SERVER_CORE == processes.LOAD_CORE:
        remark("only one core: server, broker and load share it, so figures are far too low")
    os.sched_setaffinity(0, {processes.LOAD_CORE})
    with tempfile.TemporaryDirectory(prefix="bench-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        broker: int | Skipped | None = None
        for part, (measure, figures) in PARTS.items():
            if options.only and part not in options.only:
                continue
            if broker is None and part not in NEED_NO_BROKER:
                try:
                    broker = stack.enter_context(processes.mosquitto(folder))
                except Skipped as reason:
                    broker = reason
            try:
                if isinstance(broker, Skipped):
                    raise broker
                measure(folder, broker or 0, pace)
            except (Skipped, subprocess.TimeoutExpired) as reason:
                for one in figures:
                    skipped(one, reason)
    return 0


if __name__ == "__main__":
    try:
        status = main()
    except KeyboardInterrupt:
        status = 130
    raise SystemExit(status)
