"""Bytes to values and back, without a loop, a clock or a socket. Hostile bytes arrive here, so it is pure."""
