"""The demonstration: a whole world on one machine, small enough to watch, real in every part.

Nothing here is pretended: the factory's and a customer's authority, the delegator and the delegate as processes of
their own, devices that run the client which devices run. It only sets the scene and tells what happened.
"""
