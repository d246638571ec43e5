"""`python -m gateway` is the command `ocpp-gateway`."""

import sys

from .cli.main import main

sys.exit(main())
