"""The gateway as a process where something is wrong: it says what, or it goes on."""

from __future__ import annotations

import json
import os
import resource
import socket
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import argon2
import pytest
import trio
import trustme

from .processes import Site, charger, eventually, gateway, get, running
from .test_process import CONNECTOR, START, STOP, open_thingsboard, until, value

pytestmark = pytest.mark.real_time


@pytest.fixture
def site(tmp_path):
    site = Site(tmp_path)
    site.configure()
    return site


async def failed(site, **more):
    """The last line of a gateway that must not start, once it has left with status 1."""
    async with gateway(site, ready=False, **more) as program:
        assert await program.end() == 1
        assert program.lines == []
        assert "Traceback" not in program.complaint()
        message = program.last_words()
        assert message.startswith("ocpp-gateway: "), message
        return message


# --- the store ---------------------------------------------------------------------------------


async def test_a_full_disk_fells_it_and_nobody_was_told_what_is_not_stored(site):
    """HC-133: by a limit of size; with room again it goes on where it was."""

    def little_room():
        resource.setrlimit(resource.RLIMIT_FSIZE, (800_000, 800_000))

    open_start = {"connector_id": 2, "id_tag": "TAG", "meter_start": 0, "timestamp": START}
    begun, stopped = [], []
    async with charger(site.url, "CP-1", site.folder, connected=False) as one:
        async with gateway(site, preexec_fn=little_room) as program:
            await one.wait_event("connected")
            unstopped = (await one.ask("StartTransaction", **open_start))["transaction_id"]
            for n in range(2_000):
                outcome = await one.outcome(
                    "StartTransaction", connector_id=1, id_tag="TAG", meter_start=n, timestamp=START
                )
                if outcome["event"] != "answer":
                    break
                transaction_id = outcome["payload"]["transaction_id"]
                begun.append((n, transaction_id))
                outcome = await one.outcome(
                    "StopTransaction",
                    transaction_id=transaction_id,
                    meter_stop=n + 1,
                    timestamp=STOP,
                )
                if outcome["event"] != "answer":
                    break
                stopped.append(transaction_id)
            assert (
                outcome["event"] == "closed"
            )  # neither an answer nor a refusal, which would be final
            assert await program.end() == 1
            assert program.last_words().startswith(f"ocpp-gateway: {site.store}: ")
            assert "Traceback" not in program.complaint()
        assert len(begun) > 3
        stored = {
            transaction_id: int(float(meter_start))
            for transaction_id, meter_start in site.rows("select id, meter_start from tx")
        }
        assert [(stored[transaction_id], transaction_id) for _, transaction_id in begun] == begun
        async with gateway(site) as program:  # room again
            await one.wait_event("connected")
            retried = await one.ask("StartTransaction", **open_start)
            assert retried["transaction_id"] == unstopped
            n, transaction_id = begun[-1]
            if transaction_id not in stopped:  # else the disk was full at a start: nothing to retry
                assert await one.start(n, START) == transaction_id
            assert await one.start(n + 1, START) not in stored
            count = "select count(*) from receipt"
            await eventually(lambda: site.rows(count)[0][0] >= len(stopped))
    settled = {row[0] for row in site.rows("select id from tx where settled")}
    assert set(stopped) <= settled


async def test_a_second_gateway_on_the_same_store_is_refused(site):
    """HC-137."""
    async with gateway(site) as first:
        other = Site(site.folder)
        other.configure()
        message = await failed(other)
        assert "another gateway is using this store" in message
        assert (await get(site.admin, "/healthz"))[0] == 200
        assert await first.stop() == 0


async def test_a_store_that_is_none_is_left_alone(site):
    """HC-136."""
    site.store.write_bytes(b"my diary, not a database" * 1_000)
    message = await failed(site)
    assert message.startswith(f"ocpp-gateway: {site.store}: file is not a database")
    assert site.store.read_bytes() == b"my diary, not a database" * 1_000


async def test_a_store_of_a_newer_gateway_is_left_alone(site):
    """HC-136."""
    with closing(sqlite3.connect(site.store)) as db:
        db.execute("pragma user_version = 99")
    assert "written by a newer gateway (schema 99" in await failed(site)
    assert site.rows("pragma user_version") == [(99,)]


@pytest.mark.parametrize("folder", ["/proc/nowhere", "{tmp}/file"])
async def test_a_folder_that_cannot_be_written_is_reported(site, folder):
    (site.folder / "file").write_text("a file where a folder should be")
    folder = folder.replace("{tmp}", str(site.folder))
    text = site.config.read_text().replace(
        f"sqlite://{site.store}", f"sqlite://{folder}/gateway.db"
    )
    site.config.write_text(text)
    message = await failed(site)
    assert message.startswith(f"ocpp-gateway: {folder}/gateway.db: cannot be opened for writing: ")


# --- the ports ---------------------------------------------------------------------------------


@pytest.mark.parametrize("port", ["ocpp", "admin"])
async def test_a_port_in_use_is_told(site, port):
    """HC-137."""
    with socket.create_server(("127.0.0.1", getattr(site, port))):
        message = await failed(site)
    address = f"127.0.0.1:{getattr(site, port)}"
    assert message == f"ocpp-gateway: cannot listen on {address}: Address already in use"


async def test_an_address_that_is_not_ours_is_reported(site):
    site.config.write_text(site.config.read_text().replace("127.0.0.1", "192.0.2.1", 1))
    message = await failed(site)
    assert message.startswith(
        f"ocpp-gateway: cannot listen on 192.0.2.1:{site.ocpp}: Cannot assign"
    )


async def test_localhost_and_ipv6_are_listened_on_as_they_are_said(site):
    site.config.write_text(site.config.read_text().replace("127.0.0.1", "localhost"))
    async with gateway(site) as program:
        infos = await trio.socket.getaddrinfo("localhost", site.ocpp, type=socket.SOCK_STREAM)
        for *_, address in infos:
            with socket.create_connection(address[:2], 5):
                pass
        assert await program.stop() == 0
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return
    site.config.write_text(site.config.read_text().replace("localhost", "[::1]", 1))
    async with gateway(site) as program:
        assert program.lines[0].startswith(f"ready ocpp=[::1]:{site.ocpp} admin=")
        async with charger(f"ws://[::1]:{site.ocpp}/ocpp", "CP-6", site.folder) as one:
            await one.boot()
        assert await program.stop() == 0


async def test_port_0_is_a_free_port_that_the_ready_line_tells(site):
    text = site.config.read_text()
    site.config.write_text(text.replace(f":{site.ocpp}", ":0").replace(f":{site.admin}", ":0"))
    async with gateway(site) as program:
        ports = dict(part.split("=") for part in program.lines[0].split()[1:])
        async with charger(f"ws://{ports['ocpp']}/ocpp", "CP-1", site.folder) as one:
            await one.boot()
        assert (await get(int(ports["admin"].rpartition(":")[2]), "/readyz"))[0] == 200
        assert await program.stop() == 0


GARBAGE = {
    "noise": os.urandom(4_096),
    "zeros": bytes(100_000),
    "a TLS hello": bytes.fromhex("16030100c8010000c40303") + bytes(200),
    "an endless header": b"GET / HTTP/1.1\r\nX: " + b"y" * 200_000,
    "no WebSocket": b"GET /ocpp/CP-9 HTTP/1.1\r\nHost: x\r\n\r\n",
    "another method": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\n" + b"z" * 999,
    "MQTT": bytes.fromhex("101000044d5154540502003c00000473656c66"),
    "nothing": b"",
    "line ends": b"\r\n" * 10_000,
}  # fmt: skip


async def test_garbage_on_any_port_harms_nobody(site):
    certificates(site.folder)
    site.configure(ocpp=TLS_BESIDE.format(site=site))
    async with gateway(site) as program, charger(site.url, "CP-1", site.folder) as one:
        async with trio.open_nursery() as nursery:
            for port in (site.ocpp, site.ocpp_tls, site.admin):
                for data in GARBAGE.values():
                    nursery.start_soon(throw, port, data)
        await one.boot()
        assert (await get(site.admin, "/healthz"))[0] == 200
        async with charger(site.url, "CP-2", site.folder) as two:
            await two.boot()
        assert await program.stop() == 0
        assert '"level": "error"' not in program.complaint()


async def throw(port, data):
    """Send it, go on until the other side has had enough or nothing comes for a moment, leave."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        with trio.move_on_after(1):
            try:
                await stream.send_all(data)
                while await stream.receive_some():
                    pass
            except trio.BrokenResourceError:
                pass


# --- who may come in -------------------------------------------------------------------------

TLS_BESIDE = """
listen_tls = "127.0.0.1:{site.ocpp_tls}"
tls_cert = "cert.pem"
tls_key = "key.pem"
"""


def certificates(folder):
    """An authority, the gateway's certificate and a charge point's; the authority's file."""
    authority = trustme.CA()
    server = authority.issue_cert("127.0.0.1")
    server.private_key_pem.write_to_path(folder / "key.pem")
    server.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    authority.issue_cert("CP-1").private_key_and_cert_chain_pem.write_to_path(folder / "CP-1.pem")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    return str(folder / "ca.pem")


def password_of(name, password):
    """The configuration of a charge point with a password; the hash is cheap on purpose."""
    hashed = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(password)
    return f'[charge_points."{name}"]\npassword_hash = "{hashed}"\n'


async def test_a_password_lets_in_and_a_wrong_one_does_not(site):
    site.configure(more=password_of("CP-1", "open:sesame"))
    async with open_thingsboard(site) as thingsboard, gateway(site) as program:
        async with charger(site.url, "CP-1", site.folder, "--password", "open:sesame") as one:
            await one.boot()
            await until(thingsboard, lambda _: value(thingsboard, "CP-1", "connected") is True)
            assert thingsboard.devices["CP-1"].attributes["security_profile"] == 1
        for wrong in (["--password", "wrong"], []):
            async with charger(site.url, "CP-1", site.folder, *wrong, connected=False) as one:
                assert (await one.wait_event("not_connected"))["status"] == 401
        assert "sesame" not in program.complaint()


async def test_a_charge_over_tls_beside_the_plain_port(site):
    ca = certificates(site.folder)
    site.configure(ocpp=TLS_BESIDE.format(site=site), more=password_of("CP-1", "pw"))
    secure = f"wss://127.0.0.1:{site.ocpp_tls}/ocpp"
    async with open_thingsboard(site) as thingsboard, gateway(site) as program:
        assert program.lines[0].endswith(f" ocpp_tls=127.0.0.1:{site.ocpp_tls}")
        async with (
            charger(secure, "CP-1", site.folder, "--ca", ca, "--password", "pw") as one,
            charger(site.url, "CP-2", site.folder) as two,
        ):
            await one.boot()
            await two.boot()
            await one.status("Available", minutes_ago=40)
            await until(thingsboard, lambda _: CONNECTOR in thingsboard.devices)
            answer = await thingsboard.rpc(CONNECTOR, "remoteStart", {"idTag": "APP"}, timeout=20)
            assert answer["status"] == "Accepted"
            await until(
                thingsboard, lambda _: value(thingsboard, CONNECTOR, "tx_energy_wh") == 3250
            )
            answer = await thingsboard.rpc(CONNECTOR, "remoteStop", timeout=20)
            assert answer["status"] == "Stopped"
            assert thingsboard.devices["CP-1"].attributes["security_profile"] == 2
            assert thingsboard.devices["CP-2"].attributes["security_profile"] == 0
            assert await program.stop() == 0
            for each in (one, two):
                assert (await each.wait_event("closed"))["code"] == 1001
        assert thingsboard.violations == []


async def test_without_listen_tls_the_only_port_speaks_tls(site):
    ca = certificates(site.folder)
    site.configure(ocpp='tls_cert = "cert.pem"\ntls_key = "key.pem"')
    async with gateway(site) as program:
        assert "ocpp_tls" not in program.lines[0]
        secure = f"wss://127.0.0.1:{site.ocpp}/ocpp"
        async with charger(secure, "CP-1", site.folder, "--ca", ca) as one:
            await one.boot()
        async with charger(site.url, "CP-2", site.folder, connected=False) as two:
            await two.wait_event("not_connected")
        other = trustme.CA().cert_pem
        other.write_to_path(site.folder / "other.pem")
        stranger = ["--ca", str(site.folder / "other.pem")]
        async with charger(secure, "CP-3", site.folder, *stranger, connected=False) as three:
            assert "certificate verify failed" in (await three.wait_event("not_connected"))["why"]
        assert await program.stop() == 0


async def test_client_certificates_are_asked_for_where_an_authority_is_named(site):
    ca = certificates(site.folder)
    site.configure(ocpp=TLS_BESIDE.format(site=site) + 'client_ca = "ca.pem"')
    secure = f"wss://127.0.0.1:{site.ocpp_tls}/ocpp"
    own = ["--cert", str(site.folder / "CP-1.pem")]
    async with open_thingsboard(site) as thingsboard, gateway(site):
        async with charger(secure, "CP-1", site.folder, "--ca", ca, *own) as one:
            await one.boot()
            await until(thingsboard, lambda _: value(thingsboard, "CP-1", "connected") is True)
            assert thingsboard.devices["CP-1"].attributes["security_profile"] == 3
        async with charger(secure, "CP-2", site.folder, "--ca", ca, connected=False) as two:
            await two.wait_event("not_connected")


# --- what is not asked for -------------------------------------------------------------------


async def test_wrong_configuration_ends_with_2_and_every_fault(site):
    site.config.write_text('[ocpp]\nlisten = "x"\ngrace_s = -1\n[pricing]\ntariffs = "none.json"\n')
    async with gateway(site, ready=False) as program:
        assert await program.end() == 2
        faults = [line.split(": ")[1] for line in program.complaint().splitlines()]
        assert faults[:3] == ["ocpp.listen", "ocpp.grace_s", "pricing.tariffs"]
        assert program.lines == []


async def test_few_open_files_slow_it_down_and_no_more(site):
    """HC-139, ulimit -n 64: whom there is no file for must wait or go, and nothing spins."""

    def few_files():
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

    async with gateway(site, preexec_fn=few_files) as program:
        streams = []
        for _ in range(100):
            with trio.move_on_after(1):
                streams.append(await trio.open_tcp_stream("127.0.0.1", site.ocpp))
        before = cpu_seconds(program)
        await trio.sleep(2)  # in which it is to do nothing
        assert cpu_seconds(program) - before < 0.5
        for stream in streams:
            await stream.aclose()
        async with charger(site.url, "CP-1", site.folder) as one:
            await one.boot()
        assert await program.stop() == 0


def cpu_seconds(program):
    fields = Path(f"/proc/{program.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def test_run_needs_no_home_and_no_terminal(site):
    """As systemd or a container starts it: an empty environment, no stdin."""
    command = ["/usr/bin/env", "-i", f"PATH={os.environ['PATH']}"]
    command += [sys.executable, "-m", "gateway", "run", "--config", str(site.config)]
    async with running(command, site.log) as program:
        await program.line(lambda line: line.startswith("ready "))
        assert json.loads((await get(site.admin, "/readyz"))[1])["ready"] is True
        assert await program.stop() == 0
