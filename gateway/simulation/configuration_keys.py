"""The configuration of a simulated charge point, by OCPP's key names (OCPP 1.6 chapter 9)."""

from __future__ import annotations

import attrs

from .ocpp_connection import Payload

_AC = "Energy.Active.Import.Register,Power.Active.Import,Current.Import,Voltage"
_KNOWN_MEASURANDS = frozenset([*_AC.split(","), "SoC"])
PASSWORD = "AuthorizationKey"  # noqa: S105  the key's name; its value is never sent


@attrs.define
class _Setting:
    value: str
    kind: str = "number"  # number | flag | measurands | password | text
    readonly: bool = False

    def is_valid(self, value: str) -> bool:
        match self.kind:
            case "number":
                return value.isascii() and value.isdigit() and len(value) < 10
            case "flag":
                return value.lower() in ("true", "false")
            case "measurands":
                return value == "" or set(value.split(",")) <= _KNOWN_MEASURANDS
            case "password":
                return 16 <= len(value) <= 40
            case _:
                return len(value) <= 500


class ConfigurationKeys:
    """Owns: the values, which ChangeConfiguration may change at any time.

    A key that this charge point does not act on is read-only: it accepts no change without effect.
    """

    def __init__(self, *, connectors: int, direct_current: bool, sample_interval_s: int) -> None:
        measurands = _AC + ",SoC" if direct_current else _AC
        self._settings = {
            "AllowOfflineTxForUnknownId": _Setting("true", "flag"),
            "AuthorizationCacheEnabled": _Setting("false", "flag", readonly=True),
            "AuthorizeRemoteTxRequests": _Setting("true", "flag"),
            PASSWORD: _Setting("", "password"),
            "ClockAlignedDataInterval": _Setting("0", readonly=True),
            "ConnectionTimeOut": _Setting("60", readonly=True),
            "ConnectorPhaseRotation": _Setting("0.RST", "text", readonly=True),
            "GetConfigurationMaxKeys": _Setting("50", readonly=True),
            "HeartbeatInterval": _Setting("300"),
            "LocalAuthListEnabled": _Setting("true", "flag"),
            "LocalAuthListMaxLength": _Setting("1000", readonly=True),
            "LocalAuthorizeOffline": _Setting("true", "flag"),
            "LocalPreAuthorize": _Setting("false", "flag"),
            "MeterValuesAlignedData": _Setting("", "measurands", readonly=True),
            "MeterValuesSampledData": _Setting(measurands, "measurands"),
            "MeterValueSampleInterval": _Setting(str(sample_interval_s)),
            "NumberOfConnectors": _Setting(str(connectors), readonly=True),
            "ResetRetries": _Setting("1", readonly=True),
            "SendLocalListMaxLength": _Setting("100", readonly=True),
            "StopTransactionOnEVSideDisconnect": _Setting("true", "flag", readonly=True),
            "StopTransactionOnInvalidId": _Setting("true", "flag"),
            "StopTxnAlignedData": _Setting("", "measurands", readonly=True),
            "StopTxnSampledData": _Setting("Energy.Active.Import.Register", "measurands"),
            "SupportedFeatureProfiles": _Setting(
                "Core,FirmwareManagement,LocalAuthListManagement,Reservation,SmartCharging,"
                "RemoteTrigger",
                "text",
                readonly=True,
            ),
            "TransactionMessageAttempts": _Setting("3"),
            "TransactionMessageRetryInterval": _Setting("60"),
            "UnlockConnectorOnEVSideDisconnect": _Setting("true", "flag", readonly=True),
            "WebSocketPingInterval": _Setting("0", readonly=True),
            "ChargeProfileMaxStackLevel": _Setting("10", readonly=True),
            "ChargingScheduleAllowedChargingRateUnit": _Setting(
                "Current,Power", "text", readonly=True
            ),
            "ChargingScheduleMaxPeriods": _Setting("24", readonly=True),
            "MaxChargingProfilesInstalled": _Setting("20", readonly=True),
        }

    def number(self, key: str) -> int:
        return int(self._settings[key].value)

    def flag(self, key: str) -> bool:
        return self._settings[key].value.lower() == "true"

    def text(self, key: str) -> str:
        return self._settings[key].value

    def measurands(self, key: str) -> list[str]:
        return [name for name in self._settings[key].value.split(",") if name]

    def put(self, key: str, value: str) -> None:
        """Set a value that the charge point itself decides."""
        self._settings[key].value = value

    def change_configuration(self, key: str, value: str) -> str:
        """ChangeConfiguration (§5.3): the status of the response."""
        setting = self._settings.get(key)
        if setting is None:
            return "NotSupported"
        if setting.readonly or not setting.is_valid(value):
            return "Rejected"
        setting.value = value
        return "Accepted"

    def get_configuration(self, keys: list[str]) -> Payload:
        """GetConfiguration (§5.8): these keys, or all for an empty list."""
        known = [key for key in keys or self._settings if key in self._settings]
        entries = [
            {"key": key, "readonly": self._settings[key].readonly}
            | ({} if key == PASSWORD else {"value": self._settings[key].value})
            for key in known
        ]
        unknown = [key[:50] for key in keys if key not in self._settings]
        return {"configurationKey": entries} | ({"unknownKey": unknown} if unknown else {})
