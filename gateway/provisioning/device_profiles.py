"""The device profiles: what makes ThingsBoard send chargers through our rule chain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..northbound.telemetry_keys import CHARGE_POINT_TYPE, CONNECTOR_TYPE, SESSION_LOG_TYPE

DESCRIPTIONS: Mapping[str, str] = {
    CHARGE_POINT_TYPE: "A charge point, as OCPP knows it.",
    CONNECTOR_TYPE: "One connector of a charge point.",
    SESSION_LOG_TYPE: "All finished charging sessions of a gateway, one row each.",
}


def profile(name: str) -> dict[str, Any]:
    """The profile, without the rule chain that it leads to.

    `alarms` is not in it: ThingsBoard hides it from 4.3 on, and our alarms are the rule chain's.
    """
    return {
        "name": name,
        "description": DESCRIPTIONS[name],
        "type": "DEFAULT",
        "transportType": "DEFAULT",
        "provisionType": "DISABLED",
        "profileData": {
            "configuration": {"type": "DEFAULT"},
            "transportConfiguration": {"type": "DEFAULT"},
            "provisionConfiguration": {"type": "DISABLED"},
        },
    }
