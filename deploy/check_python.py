"""Can this Python make the virtual environment?  If not, one line says what to do."""

import sys

if not (3, 11) <= sys.version_info[:2] <= (3, 13):
    sys.exit(
        "ocpp-gateway needs Python 3.11, 3.12 or 3.13, and this is %d.%d"
        " (trio-asyncio cannot be imported on 3.14 yet);"
        " choose one: make PYTHON=python3.12 ..." % sys.version_info[:2]
    )
try:
    import ensurepip  # noqa: F401
    import venv  # noqa: F401
except ImportError:
    sys.exit(
        "the venv module is missing; on Debian or Ubuntu: apt-get install python%d.%d-venv"
        % sys.version_info[:2]
    )
