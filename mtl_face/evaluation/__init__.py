"""Everything after the network: the prediction table, its scores and the report.

All of it is NumPy in float64 and needs no device.
"""
