"""The reference delegate: a server that a customer runs as it is, on one HTTPS port.

A delegator that proves its name asks it for a credential per claim; the device that shows this credential gets its
provisioning data; the delegator tells how it ended. Walk: app (starts, stops) -> server (one request) ->
access (may they) -> ledger (what was given to whom) and provisioning (what a device gets).
The invariant: provisioning data goes to a credential that is in force, and to nothing else.
Must not live here: anything of the manufacturer's side (server, provisioning.handshake, callbacks).
"""
