"""What people may say and see, the same at every door: the command line now, a portal and an API besides.

A word becomes a value here or is refused with ValueError, in a sentence that says the form it should have had; a value
becomes plain data; files of rows are read; and it is worked out why a device is given a credential, or is not.
The invariant: whoever comes in by another door meets the same rules, so no rule about values stands above this room.
Must not live here: how a door asks or shows (click, HTML, HTTP), what lasts (store), what devices are told
(doors.devices.soap).
"""
