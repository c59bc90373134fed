"""The devices' port, 4433: SOAP, and in time the dialects of devices that exist.

The invariant: a request is a value before anybody else sees it.
Must not live here: what to answer (provisioning), sockets (net).
"""
