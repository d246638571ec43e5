"""`python -m gateway` is the command `ocpp-gateway`."""

import sys

from .cli import main

sys.exit(main())
