"""What every Ringsage trainer shares: data, sampling, configuration, metrics and records.

Nothing is imported here, so that a room costs only what it needs itself, and so that the installer
can run from this package on a Python that has no third-party module at all.
"""
