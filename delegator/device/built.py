"""The moment this client was built: no device can truthfully believe that it is earlier.

`scripts/build_device.py` writes the build's own moment into the packed file. Nothing else lives here.
"""

BUILD_TIME = 1795219200
"""Seconds since 1970. The true time is at least this, whatever the device's clock says (RFC 8995 section 2.6.1)."""
