"""What turns, and what time it is: the event loop, work that goes on, one deadline for a request, the clock believed.

The invariant: nothing here knows what it is used for; every room above may use it.
Must not live here: settings, what is decided by a time.
"""
