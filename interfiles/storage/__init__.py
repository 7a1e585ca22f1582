"""The blocking work on disks, called in threads.

Long work takes a callable `cancelled`, asks it at every step, and raises `Stopped` once it answers yes.
"""


class Stopped(Exception):
    """The caller no longer wants the result; nobody is shown this, so it is not one of `interfiles.errors`."""
