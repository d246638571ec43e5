"""One run: a server started afresh, loaded, heard out at the broker and ended."""

from __future__ import annotations

import contextlib
import re
import statistics
import urllib.request
from pathlib import Path

from . import processes, sink
from .figures import remark

PREFIX = "BENCH"
#: A sample of Prometheus' text: name, labels, value.
SAMPLE = re.compile(r"^([A-Za-z_:][A-Za-z0-9_:]*)(?:\{.*\})? (\S+)", re.MULTILINE)

GATEWAY, CHARGE_POINT, OCPP_RPC, ECHO = (
    "gateway",
    "websockets_ocpp_aiomqtt",
    "ocpp_rpc_mqtt",
    "trio_websocket_echo",
)
SERVERS = {
    GATEWAY: processes.gateway,
    CHARGE_POINT: processes.charge_point,
    OCPP_RPC: processes.ocpp_rpc,
    ECHO: processes.echo,
}


def run(name: str, folder: Path, port: int, north_limit: float, *arguments: object) -> dict:
    """One server started, loaded, heard out at the broker and ended: all that was measured.

    Adds to what the load says: `events` (answered requests that make one), `arrived` (of them at
    the broker), `by_kind` (both by action), `lag_s` (from the last answer to the last arrival),
    `behind` (some were still to come when we stopped waiting, `north_limit` seconds later) and, of
    the gateway, `north` (what it took to tell them) and `metrics`.
    """
    record = folder / "record"
    with SERVERS[name](folder, port) as server, contextlib.ExitStack() as later:
        if name == ECHO:
            return processes.load(server, folder, *arguments)
        broker = sink.Sink(port)
        later.callback(broker.close)
        result = processes.load(server, folder, "--prefix", PREFIX, "--record", record, *arguments)
        quiet = broker.wait_quiet(1.0, north_limit)
        result["metrics"] = metrics(server)
    if name == GATEWAY:
        came = sink.at_thingsboard(broker, record, PREFIX)
        result["north"] = came.took
    else:
        came = sink.at_topics(broker)
    by_kind = {kind: [sent, came.counts.get(kind, 0)] for kind, sent in result["sent"].items()}
    result["by_kind"] = by_kind
    result["events"] = sum(sent for sent, _ in by_kind.values())
    result["arrived"] = sum(min(pair) for pair in by_kind.values())
    result["lag_s"] = round(max(came.last_at - result["ended_at"], 0.0), 3)
    result["behind"] = result["arrived"] < result["events"] and not quiet
    return result


def metrics(server: processes.Server) -> dict[str, float]:
    """The admin port's /metrics, labels summed; empty where there is none."""
    if not server.admin:
        return {}
    try:
        with urllib.request.urlopen(f"http://{server.admin}/metrics", timeout=5) as answer:
            text = answer.read().decode()
    except OSError as error:
        remark(f"/metrics: {error}")
        return {}
    sums: dict[str, float] = {}
    for found in SAMPLE.finditer(text):
        with contextlib.suppress(ValueError):
            sums[found[1]] = sums.get(found[1], 0.0) + float(found[2])
    return sums


def rows_per_commit(sums: dict[str, float]) -> float | None:
    """Rows per commit of the journal; None where /metrics does not tell both."""

    def first(*patterns: str) -> float | None:
        for pattern in patterns:
            for name, value in sums.items():
                if re.search(pattern, name):
                    return value
        return None

    metric = first(r"rows_per_commit(_mean|_avg)?$")
    if metric is not None:
        return metric
    total, count = (first(rf"rows_per_commit_{part}$") for part in ("sum", "count"))
    rows = total or first(r"journal_(rows|entries|appended|events)\w*_total$", r"journal_rows")
    commits = count or first(r"journal_\w*commits(_total)?$", r"commits_total$")
    return rows / commits if rows and commits else None


def median(results: list[dict], key: str) -> float:
    return round(statistics.median(result[key] for result in results), 3)


def errors_of(results: list[dict]) -> int:
    return sum(result["errors"] for result in results)


def not_arrived(results: list[dict]) -> int:
    return sum(result["events"] - result["arrived"] for result in results)
