"""The processes that a benchmark consists of: broker, servers, load; each pinned, each ended.

The server has a core to itself; load and broker share the other, as in a house where the gateway
is what is measured.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import select
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import attrs

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, LOAD_CORE = CORES[0], CORES[-1]


class Skipped(Exception):
    """A figure cannot be had here; the text says why."""


@attrs.frozen
class Server:
    """A central system at `url`.  admin: its host:port; store: its file; none where it has none."""

    name: str
    process: subprocess.Popen
    url: str
    admin: str = ""
    fixed_reply: bool = False
    store: Path | None = None


@contextlib.contextmanager
def on_core(core: int) -> Iterator[None]:
    """What is started meanwhile runs on this core, with all its threads."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def running(command: list[str], core: int, log: Path, **more) -> Iterator[subprocess.Popen]:
    """A process with its stdout piped to us; ended, if need be by force, on the way out."""
    with log.open("ab") as errors:
        with on_core(core):
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, cwd=ROOT, **more
            )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()


def ready(process: subprocess.Popen, log: Path, timeout: float = 20.0) -> dict[str, str]:
    """What the `ready` line on its stdout names, such as {"ocpp": "127.0.0.1:4711"}.

    Raises Skipped, with the end of its log, where none comes.
    """
    output, deadline = b"", time.monotonic() + timeout
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([process.stdout], [], [], left)[0]:
            break
        data = os.read(process.stdout.fileno(), 4096)
        if not data:
            break
        output += data
        if found := re.search(rb"^ready (.*)\n", output, re.MULTILINE):
            return dict(part.split("=", 1) for part in found[1].decode().split())
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(1)
    complaint = log.read_text(errors="replace").strip()[-300:]
    raise Skipped(f"{log.stem} does not start: {complaint or output.decode(errors='replace')}")


# --- the broker -------------------------------------------------------------------------------


@contextlib.contextmanager
def mosquitto(folder: Path, at: int | None = None) -> Iterator[int]:
    """A real Mosquitto; yields its port, which is `at` or a free one.  Raises Skipped."""
    program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    if program is None:
        raise Skipped("mosquitto is not installed (on Debian and Ubuntu: apt install mosquitto)")
    for _ in range(5):
        port = at or free_port()
        config = folder / "mosquitto.conf"
        config.write_text(
            f"listener {port} 127.0.0.1\n"
            "allow_anonymous true\npersistence false\nset_tcp_nodelay true\n"
            # ThingsBoard allows 100 messages under way (MTH 1482); a queue without bound, so that
            # nothing is dropped where a subscriber lags
            "max_inflight_messages 100\nmax_queued_messages 0\nmax_queued_bytes 0\n"
            "log_type error\nlog_type warning\n"
        )
        log = folder / "mosquitto.log"
        with running([program, "-c", str(config)], LOAD_CORE, log) as process:
            if answers(port, process):
                yield port
                return
    raise Skipped(f"mosquitto does not start: {log.read_text(errors='replace')[-300:]}")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def answers(port: int, process: subprocess.Popen) -> bool:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return process.poll() is None
        time.sleep(0.02)
    return False


# --- the central systems ----------------------------------------------------------------------

#: Per kWh with a fee at the start, as most tariffs are (OCPI 2.2.1).
TARIFFS = {
    "tariffs": [
        {
            "country_code": "NL",
            "party_id": "BEN",
            "id": "BENCH",
            "currency": "EUR",
            "elements": [
                {
                    "price_components": [
                        {"type": "FLAT", "price": 0.50, "vat": 21.0, "step_size": 1},
                        {"type": "ENERGY", "price": 0.35, "vat": 21.0, "step_size": 1},
                    ]
                }
            ],
            "last_updated": "2024-01-01T00:00:00Z",
        }
    ],
    "assign": [{"default": True, "tariffs": ["BENCH"]}],
}


@contextlib.contextmanager
def gateway(folder: Path, mqtt_port: int) -> Iterator[Server]:
    """Ours: durable, priced, published to the broker, with a fresh store each time."""
    with fresh(folder) as home:
        (home / "tariffs.json").write_text(json.dumps(TARIFFS))
        config = home / "gateway.toml"
        config.write_text(
            '[ocpp]\nlisten = "127.0.0.1:0"\n'
            f'[thingsboard]\nhost = "127.0.0.1"\nport = {mqtt_port}\n'
            'access_token = "bench"\nbatch_devices = true\n'
            f'[storage]\nurl = "sqlite:///{home / "gateway.db"}"\n'
            f'[pricing]\ntime_zone = "Europe/Amsterdam"\ntariffs = "{home / "tariffs.json"}"\n'
            '[admin]\nlisten = "127.0.0.1:0"\n'
        )
        command = [sys.executable, "-m", "gateway", "run", "--config", str(config)]
        with running(command, SERVER_CORE, log := home / "gateway.log") as process:
            ready_line = ready(process, log)
            yield Server(
                "gateway",
                process,
                ws(ready_line["ocpp"]),
                admin=ready_line.get("admin", ""),
                store=home / "gateway.db",
            )


@contextlib.contextmanager
def charge_point(folder: Path, mqtt_port: int) -> Iterator[Server]:
    """Peer (a): websockets, ocpp, aiomqtt."""
    command = [sys.executable, "-m", "tests.bench.peers.charge_point", "--mqtt-port"]
    log = folder / "websockets_ocpp_aiomqtt.log"
    with running([*command, str(mqtt_port)], SERVER_CORE, log) as process:
        yield Server("websockets_ocpp_aiomqtt", process, ws(ready(process, log)["ocpp"]))


@contextlib.contextmanager
def ocpp_rpc(folder: Path, mqtt_port: int) -> Iterator[Server]:
    """Peer (b): ocpp-rpc, mqtt, on Node."""
    home = node_peer()
    command = [shutil.which("node"), str(home / "central_system.js"), str(mqtt_port)]
    log = folder / "ocpp_rpc_mqtt.log"
    with running(command, SERVER_CORE, log) as process:
        yield Server("ocpp_rpc_mqtt", process, ws(ready(process, log)["ocpp"]))


@contextlib.contextmanager
def echo(folder: Path, _mqtt_port: int) -> Iterator[Server]:
    """A bare trio-websocket server with a fixed reply."""
    log = folder / "trio_websocket_echo.log"
    command = [sys.executable, "-m", "tests.bench.peers.echo"]
    with running(command, SERVER_CORE, log) as process:
        yield Server("trio_websocket_echo", process, ws(ready(process, log)["ocpp"]), "", True)


def node_peer() -> Path:
    """The folder of the Node peer, its packages installed by npm on first use and kept."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise Skipped("node and npm are not installed")
    manifest = (HERE / "peers" / "package.json").read_bytes()
    script = (HERE / "peers" / "central_system.js").read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = cache / "ocpp-gateway-bench" / hashlib.sha256(manifest).hexdigest()[:12]
    home.mkdir(parents=True, exist_ok=True)
    (home / "package.json").write_bytes(manifest)
    (home / "central_system.js").write_bytes(script)
    if not (home / "installed").exists():
        print("installing the Node peer with npm", file=sys.stderr)
        command = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock"]
        try:
            subprocess.run(command, cwd=home, check=True, capture_output=True, timeout=180)
        except subprocess.CalledProcessError as error:
            raise Skipped(f"npm install: {error.stderr.decode(errors='replace')[-300:]}") from error
        except subprocess.TimeoutExpired as error:
            raise Skipped("npm install took more than 180 s") from error
        (home / "installed").touch()
    return home


@contextlib.contextmanager
def fresh(folder: Path) -> Iterator[Path]:
    home = folder / f"gateway-{time.monotonic_ns()}"
    home.mkdir()
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


def ws(address: str) -> str:
    return f"ws://{address}/ocpp"


# --- the load ---------------------------------------------------------------------------------


def load(server: Server, folder: Path, *arguments: object, timeout: float = 180.0) -> dict:
    """Run the load generator against a server; what it measured.

    Raises Skipped where not one request was answered.
    """
    command = [sys.executable, "-m", "tests.bench.load", "--url", server.url]
    command += ["--server-pid", str(server.process.pid), *map(str, arguments)]
    if server.fixed_reply:
        command.append("--fixed-reply")
    log = folder / "load.log"
    with running(command, LOAD_CORE, log) as process:
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as error:
            raise Skipped(f"{server.name}: the load did not end in {timeout:.0f} s") from error
    if not output.strip():
        raise Skipped(f"the load failed: {log.read_text(errors='replace')[-300:]}")
    result = json.loads(output)
    if result["errors"]:
        print(
            f"{server.name}: {result['errors']} errors, first: {result['first_error']}",
            file=sys.stderr,
        )
    if not result.get("requests", True):
        raise Skipped(f"{server.name} answered nothing: {result['first_error']}")
    return result
