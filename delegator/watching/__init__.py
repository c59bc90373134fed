"""What operators look at: metrics, logs, readiness, the port where they are read, and rows of audit of what we saw.

The invariant: whatever happens here, devices are served on; nothing here decides about a device.
Must not live here: what devices are told (provisioning), counting and words of the store itself.
"""
