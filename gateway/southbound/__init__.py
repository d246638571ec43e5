"""Southbound: charge points, OCPP 1.6J over WebSocket."""
