"""The image, built and run: a charge through it, its health, its orderly end.

`make test-container` runs this; it needs root, buildah and debootstrap, and the network.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import yaml

import gateway
from gateway.simulation.thingsboard import ThingsBoard

from ..provisioning.fake_rest_api import PASSWORD, FakeRestApi, served
from .images import Image, built
from .processes import ROOT, TOKEN, Site, charger, get, running

pytestmark = [pytest.mark.container, pytest.mark.real_time, pytest.mark.timeout(600)]

DEPLOY = ROOT / "deploy"
CONNECTOR, LOG = "CP-1/1", "ocpp-gateway sessions"
RUN = ("run", "--config", "/etc/ocpp-gateway/gateway.toml")


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    if os.geteuid() != 0:
        pytest.fail("the image is built and run as root: sudo make test-container")
    storage = tmp_path_factory.mktemp("buildah")
    with built(DEPLOY / "Dockerfile", storage) as image:
        yield image
    shutil.rmtree(storage)


class Container:
    """The image with the volume and the configuration of compose.yaml, on ports of its own."""

    def __init__(self, image: Image, folder: Path) -> None:
        self.image, self.site = image, Site(folder)
        self.state, self.config = folder / "state", folder / "etc"
        self.state.mkdir()
        self.config.mkdir()
        shutil.copy(DEPLOY / "compose.gateway.toml", self.config / "gateway.toml")
        shutil.copy(DEPLOY / "tariffs.example.json", self.config / "tariffs.json")
        token = self.state / "access_token"
        token.write_text(TOKEN + "\n")
        token.chmod(0o400)
        for path in (self.state, token):
            os.chown(path, image.uid, image.uid)
        self.environment = image.environment | {
            "OCPP_GATEWAY_OCPP_LISTEN": f"127.0.0.1:{self.site.ocpp}",
            "OCPP_GATEWAY_ADMIN_LISTEN": f"127.0.0.1:{self.site.admin}",
            "OCPP_GATEWAY_THINGSBOARD_HOST": "127.0.0.1",
            "OCPP_GATEWAY_THINGSBOARD_PORT": str(self.site.mqtt),
        }

    def command(self, *program: object) -> list[str]:
        return self.image.command(self.state, self.config, *program)

    @asynccontextmanager
    async def running(self):
        command = self.command(*self.image.config["Entrypoint"], *RUN)
        async with running(command, self.site.log, env=self.environment) as program:
            await program.line(lambda line: line.startswith("ready "))
            yield program

    async def run(self, *program: object) -> subprocess.CompletedProcess[bytes]:
        with trio.fail_after(20):
            return await trio.run_process(
                self.command(*program), env=self.environment, check=False, capture_stdout=True,
                capture_stderr=True,
            )  # fmt: skip

    async def health(self) -> subprocess.CompletedProcess[bytes]:
        kind, *check = self.image.config["Healthcheck"]["Test"]
        assert kind == "CMD"  # a shell may not be there
        return await self.run(*check)


@pytest.fixture
def container(image, tmp_path):
    return Container(image, tmp_path)


@asynccontextmanager
async def open_thingsboard(site):
    thingsboard = ThingsBoard(access_tokens=[TOKEN])
    async with trio.open_nursery() as nursery:
        await nursery.start(thingsboard.serve_tcp, "127.0.0.1", site.mqtt)
        yield thingsboard
        nursery.cancel_scope.cancel()


async def until(thingsboard, predicate, within=20):
    with trio.fail_after(within):
        await thingsboard.wait_for(predicate)


def value(thingsboard, device, key):
    return thingsboard.devices[device].value(key) if device in thingsboard.devices else None


async def test_a_charge_through_the_image_and_an_orderly_end(container):
    site = container.site
    async with open_thingsboard(site) as thingsboard:
        async with (
            container.running() as program,
            charger(site.url, "CP-1", site.folder) as one,
        ):
            await one.boot()
            await one.status("Available", minutes_ago=40)
            await until(
                thingsboard, lambda _: value(thingsboard, CONNECTOR, "status") == "Available"
            )
            began = await thingsboard.rpc(CONNECTOR, "remoteStart", {"idTag": "APP"}, timeout=20)
            assert began["status"] == "Accepted"
            await until(
                thingsboard, lambda _: value(thingsboard, CONNECTOR, "tx_energy_wh") == 3250
            )
            ended = await thingsboard.rpc(CONNECTOR, "remoteStop", timeout=20)
            assert ended["status"] == "Stopped"
            await until(
                thingsboard, lambda _: value(thingsboard, LOG, "session_energy_kwh") == 7.777
            )
            assert value(thingsboard, LOG, "session_cost") == 3.29  # 7.777 * 0.35 * 1.21

            health = await container.health()
            assert (health.returncode, health.stdout) == (0, b"ok\n")
            assert (await get(site.admin, "/readyz"))[0] == 200

            stopping = trio.current_time()
            assert await program.stop() == 0
            assert trio.current_time() - stopping < 10
            assert (await one.wait_event("closed"))["code"] == 1001
        assert value(thingsboard, "CP-1", "connected") is False  # published before it went
        assert thingsboard.violations == []
    health = await container.health()
    assert (health.returncode, health.stdout) == (1, b"")
    assert b"no answer" in health.stderr
    assert b"Traceback" not in health.stderr


async def test_it_runs_as_nobody_and_writes_to_its_volume_alone(container):
    async with container.running() as program:
        process_status = await trio.Path(f"/proc/{program.process.pid}/status").read_text()
        status = {line.partition(":")[0]: line.split()[1:] for line in process_status.splitlines()}
        assert status["Uid"] == status["Gid"] == [str(container.image.uid)] * 4
        assert container.image.uid >= 10_000
        assert status["Groups"] == []
        assert int(status["CapEff"][0], 16) == int(status["CapPrm"][0], 16) == 0
        assert await program.stop() == 0
    assert (container.state / "gateway.db").stat().st_uid == container.image.uid
    for place in ("/opt/ocpp-gateway", "/etc", "/var/lib", "/"):
        refused = await container.run("/bin/sh", "-c", f"touch {place}/x")
        assert b"Read-only file system" in refused.stderr, place


async def test_it_carries_what_it_says_and_nothing_that_only_builds(container):
    config = container.image.config
    (program,) = config["Entrypoint"]  # exec form: signals reach it
    assert config["StopSignal"] == "SIGTERM"
    version = await container.run(program, "--version")
    assert version.stdout.split() == [b"ocpp-gateway", gateway.__version__.encode()]
    assert config["Labels"]["org.opencontainers.image.version"] == gateway.__version__
    environment = container.image.root / "opt" / "ocpp-gateway"
    assert not list(environment.rglob("pip"))
    assert not [*environment.glob("lib/*/site-packages/tests")]
    assert not (container.image.root / "build").exists()
    assert container.image.size_mb - container.image.base_mb < 80


async def test_its_environment_is_judged_as_a_whole(container):
    del container.environment["OCPP_GATEWAY_THINGSBOARD_HOST"]
    checked = await container.run(*container.image.config["Entrypoint"], "check", *RUN[1:])
    assert (checked.returncode, checked.stderr) == (0, b"")


async def test_the_install_step_of_compose_gives_the_gateway_its_token(container):
    token = container.state / "access_token"
    token.unlink()
    (container.config / "tenant_password").write_text(PASSWORD + "\n")
    install = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["install"]
    thingsboard = FakeRestApi()
    with served(thingsboard) as url:
        command = [
            argument.replace("http://thingsboard:8080", url).replace(
                "/run/secrets/", "/etc/ocpp-gateway/"
            )
            for argument in install["command"]
        ]
        for _ in range(2):  # at every `docker compose up`
            installed = await container.run(*container.image.config["Entrypoint"], *command)
            assert (installed.returncode, installed.stderr) == (0, b"")
    (credentials,) = thingsboard.credentials.values()
    assert token.read_text().strip() == credentials["credentialsId"]
    assert token.stat().st_mode & 0o777 == 0o600
    checked = await container.run(*container.image.config["Entrypoint"], "check", *RUN[1:])
    assert (checked.returncode, checked.stderr) == (0, b"")
