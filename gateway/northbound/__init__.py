"""Northbound: ThingsBoard over MQTT."""
