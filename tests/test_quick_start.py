"""README's first steps are run as they stand.

What installs is not: `python3 -m venv` and pip are stand-ins that put the ocpp-gateway of this
environment where README expects it, and `make` says what it would do.  Ports and the store are
moved out of the way by the environment, which beats the file.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
INSTALLED = Path(sys.executable).parent / "ocpp-gateway"

FAKE_PYTHON = f"""#!/bin/sh
[ "$1 $2" = "-m venv" ] || exec {sys.executable} "$@"
mkdir -p "$3/bin"
printf '#!/bin/sh\\nexit 0\\n' > "$3/bin/pip"
chmod +x "$3/bin/pip"
ln -s {INSTALLED} "$3/bin/ocpp-gateway"
"""


def shell_block(heading: str, number: int = 0) -> str:
    """A shell block of a chapter, without the indentation of its list."""
    chapter = README.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    indent, block = re.findall(r"^( *)```sh\n(.*?)^ *```$", chapter, re.DOTALL | re.MULTILINE)[
        number
    ]
    return re.sub(f"^{indent}", "", block, flags=re.MULTILINE)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    programs = tmp_path / "programs"
    programs.mkdir()
    fake = programs / "python3"
    fake.write_text(FAKE_PYTHON)
    fake.chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "OCPP_GATEWAY_OCPP_LISTEN": "127.0.0.1:0",
        "OCPP_GATEWAY_ADMIN_LISTEN": "127.0.0.1:0",
        "OCPP_GATEWAY_STORAGE_URL": f"sqlite://{tmp_path}/gateway.db",
        "OCPP_GATEWAY_THINGSBOARD_HOST": "127.0.0.1",
        "OCPP_GATEWAY_THINGSBOARD_PORT": "1",
    }


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
def test_the_two_commands_are_there():
    block = shell_block("Two commands")
    assert re.findall(r"^make (\w+)", block, re.MULTILINE) == ["demo", "test"]
    subprocess.run(
        ["sh", "-ec", block],
        cwd=ROOT,
        env={**os.environ, "MAKEFLAGS": "n"},
        stdout=subprocess.PIPE,
        check=True,
        timeout=30,
    )


@pytest.mark.real_time
def test_pointing_a_charger_at_it_ends_with_a_gateway_that_serves(tmp_path, environment):
    """Installs, configures, checks and runs, until SIGTERM."""
    clone = tmp_path / "clone"
    clone.mkdir()
    (clone / "deploy").symlink_to(ROOT / "deploy")
    with subprocess.Popen(
        ["sh", "-ec", shell_block("Point a charger at it")],
        cwd=clone,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    ) as shell:
        try:
            assert shell.stdout is not None
            assert shell.stdout.readline() == "configuration and tariffs are fine\n"
            assert re.fullmatch(r"ready ocpp=127\S+ admin=127\S+\n", shell.stdout.readline())
        finally:
            os.killpg(shell.pid, signal.SIGTERM)
            _, errors = shell.communicate(timeout=30)
    assert '"level":"error"' not in errors.replace(" ", "")
