"""Acting with another user's rights: what a daemon of root does for a caller, the kernel allows or refuses as theirs.

The switch is the calling thread's own (the raw system calls, not the C library's, which change every thread), and takes
the capabilities with it: no right of root's, no reserved disk space and no room beyond a quota is left inside. The real
and saved user stay root, so that user can neither signal nor trace the daemon meanwhile. A daemon of another user can
become nobody: it acts as itself, and `places` keeps it to the directories that callers have shown to be theirs.
"""

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, NoReturn, Self, TypeVar, TypeVarTuple, Unpack

from interfiles.errors import NotPermitted
from interfiles.storage.executor import Executor
from interfiles.storage.failures import whose_rights
from interfiles.storage.system import set_thread_groups, set_thread_user

PRIVATE: Final = 0o077

_OWN_GROUP: Final = os.getegid()
_OWN_GROUPS: Final = tuple(os.getgroups())

T = TypeVar("T")
Args = TypeVarTuple("Args")


@dataclass(frozen=True, slots=True)
class Owner:
    """A user on whose behalf a file is held, as the kernel named them when they asked for it.

    `groups`: supplementary ones; `umask`: what is taken off the modes of what is made for them.
    """

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    umask: int = PRIVATE

    def encode(self) -> str:
        """As text, for a database."""
        return json.dumps([self.uid, self.gid, self.groups, self.umask])

    @classmethod
    def decode(cls, text: str) -> Self:
        """The reverse of `encode`."""
        uid, gid, groups, mask = json.loads(text)
        return cls(uid, gid, tuple(groups), mask)


class _Thread(threading.local):
    """Whose rights a thread has now; None: the daemon's own."""

    def __init__(self) -> None:
        self.owner: Owner | None = None


_thread: Final = _Thread()


def can_act() -> bool:
    """Whether this process, being root's, can take on other users' rights."""
    return os.getuid() == 0


@contextmanager
def acting_as(owner: Owner | None) -> Iterator[None]:
    """Do what is inside with the rights of `owner`, None: of the daemon itself. Not to be held over an await.

    In a process that is not root's this changes nothing.

    Raises:
      NotPermitted: root lacks the capability to become another user.
    """
    before = _thread.owner
    if owner is before or not can_act():
        yield
        return
    told = whose_rights.set(None if owner is None else owner.uid)
    try:
        _become(owner)
        yield
    finally:
        whose_rights.reset(told)
        _return_to(before)


def _become(owner: Owner | None) -> None:
    try:
        set_thread_user(0, _OWN_GROUP)  # from one user to another only root can go
        _thread.owner = None
        set_thread_groups(_OWN_GROUPS if owner is None else owner.groups)
        if owner is not None:
            _thread.owner = owner  # from here on there is something to return from
            set_thread_user(owner.uid, owner.gid)
    except OSError as e:
        raise NotPermitted(
            f"the daemon cannot take on the rights of its callers: {e.strerror}; give it CAP_SETUID and CAP_SETGID, or "
            "start it without --socket-group"
        ) from e


def _return_to(owner: Owner | None) -> None:
    try:
        _become(owner)
    except NotPermitted:
        _end()


def _end() -> NoReturn:
    """A thread that may have the wrong rights must do nothing more."""
    os.abort()


def _call(owner: Owner, function: Callable[[Unpack[Args]], T], *args: *Args) -> T:
    with acting_as(owner):
        return function(*args)


class ActingExecutor:
    """Runs every function with the rights of `owner`."""

    def __init__(self, executor: Executor, owner: Owner) -> None:
        self._executor = executor
        self._owner = owner

    async def run(self, function: Callable[[Unpack[Args]], T], *args: *Args) -> T:
        return await self._executor.run(_call, self._owner, function, *args)
