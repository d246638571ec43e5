"""Receipts for other people's programs: OCPI CDRs, spreadsheets and signed values.

Pure functions of a receipt as it is stored; nothing here reads a clock, a file or a network.
"""
