"""What every Ringsage trainer shares: data, sampling, configuration, metrics and records.

Nothing is imported here: the installer runs from this package on a Python without any third-party
module.
"""
