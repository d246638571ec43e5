"""The north door: ThingsBoard, over MQTT."""
