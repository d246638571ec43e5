"""`ocpp-gateway healthz` beside `run`, as a container's health check has it."""

from __future__ import annotations

import json
import subprocess
from functools import partial

import pytest
import trio

from .processes import ROOT, Site, free_port, gateway, gateway_command

pytestmark = pytest.mark.real_time


@pytest.fixture
def site(tmp_path):
    site = Site(tmp_path)
    site.configure()
    return site


async def healthz(site, *more) -> subprocess.CompletedProcess[bytes]:
    command = gateway_command("healthz", "--config", site.config, *more)
    with trio.fail_after(20):
        return await trio.run_process(
            command, cwd=ROOT, check=False, capture_stdout=True, capture_stderr=True
        )


async def test_a_gateway_that_runs_is_well_and_one_that_does_not_is_not(site):
    async with gateway(site):
        checked = await healthz(site)
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"ok\n", b"")
    checked = await healthz(site)
    assert (checked.returncode, checked.stdout) == (1, b"")
    assert checked.stderr.startswith(b"no answer from 127.0.0.1:")
    assert checked.stderr.count(b"\n") == 1


async def test_it_shows_all_that_readyz_tells(site):
    async with gateway(site):
        checked = await healthz(site, "--ready")
    assert checked.returncode == 0
    ready = json.loads(checked.stdout)
    assert (ready["ready"], ready["store"], ready["charge_points"]) == (True, "ok", 0)
    assert ready["mqtt"].startswith("behind: ")  # there is no ThingsBoard here


@pytest.mark.parametrize("every", ["0.0.0.0", "[::]"])
async def test_a_gateway_that_listens_everywhere_is_asked_at_home(site, every):
    port = free_port()
    text = site.config.read_text().replace(f"127.0.0.1:{site.admin}", f"{every}:{port}")
    site.config.write_text(text)
    async with gateway(site):
        assert (await healthz(site)).returncode == 0


async def test_a_configuration_with_a_fault_in_it_does_not_make_a_running_gateway_ill(site):
    """It may have been edited since: only where the admin port is counts."""
    async with gateway(site):
        site.config.write_text(site.config.read_text().replace("grace_s = 5", "grace_s = -5"))
        assert (await healthz(site)).returncode == 0


async def test_somebody_who_listens_there_and_is_no_gateway_is_not_well(site):
    async def another(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.send_all(b"SSH-2.0\r\n\r\n")

    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, another, site.admin, host="127.0.0.1")
        await nursery.start(serve)
        checked = await healthz(site)
        nursery.cancel_scope.cancel()
    assert (checked.returncode, checked.stdout) == (1, b"")
    assert checked.stderr.count(b"\n") == 1
