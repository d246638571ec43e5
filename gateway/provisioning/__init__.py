"""What operators need inside ThingsBoard, and who puts it there: the installer."""
