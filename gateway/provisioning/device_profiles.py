"""The device profiles, by which ThingsBoard runs chargers' messages through the rule chain."""

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
    """The profile, without its rule chain.

    It has no `alarms`: ThingsBoard hides them from 4.3 on, and the rule chain raises the alarms.
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
