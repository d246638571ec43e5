"""The domain: events, devices, commands and values that all parts share.  No clock, socket or
disk.
"""
