"""Where the command `interfiles` starts.

Starting is most of what a command costs. Imports make some 30,000 objects that are no garbage; the collector would go
through them several times, for the last time when the process ends anyway.
"""

import gc
import sys
from typing import NoReturn

_MANY_OBJECTS = 100_000  # more than are made until a command asks its daemon


def main() -> NoReturn:
    """Run the command that was typed, and end with its exit code."""
    gc.set_threshold(_MANY_OBJECTS)
    from interfiles.cli.app import run

    code = run(sys.argv[1:])
    gc.freeze()
    sys.exit(code)


if __name__ == "__main__":
    main()
