"""The secure service delegator: proves which device asks, finds its owner, relays the owner's credential.

Holds the version and nothing else, so that `delegator.device` can be packed alone into one file.
"""

__version__ = "0.1.0"
