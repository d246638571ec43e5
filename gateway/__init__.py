"""ocpp-gateway: OCPP 1.6J charge points on one side, ThingsBoard on the other."""

__version__ = "0.1.0"
