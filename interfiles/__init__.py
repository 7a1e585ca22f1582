"""InterFiles puts big files on many hosts: this package is what daemons, CLI and users of the Python API share."""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from interfiles.control import Daemon as Daemon
    from interfiles.control import connect as connect
else:

    def __getattr__(name: str) -> object:
        """Import the Python API when it is first asked for, so that `import interfiles` stays light."""
        if name in ("Daemon", "connect"):
            from interfiles import control

            return getattr(control, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
