"""Memory that all connections of a thread share: what is in it is used up before anything is awaited.

So one that waits keeps no buffer; a master has thousands. A program that uses this package may have a loop in each of
several threads, and these run at the same time.
"""

import threading


class Scratch(threading.local):
    """`view`: so many bytes, others in every thread."""

    def __init__(self, count: int) -> None:
        self.view = memoryview(bytearray(count))
