"""What a forked child must not go on with: its parent's sockets and pools, and locks that nobody there will give back.

gunicorn --preload, multiprocessing and Celery's prefork make such children. Knows none of the objects that it tells.
"""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class Forked(Protocol):
    def after_fork(self) -> None:
        """Forget what belongs to the parent, without a word to anybody at the other end. One thread is all there is."""


#: Weakly, so that a client that nobody uses any more goes.
_told: WeakSet[Forked] = WeakSet()


def tell_children(thing: Forked) -> None:
    """Have it begin anew in every child that this process forks from now on."""
    _told.add(thing)


def _in_child() -> None:
    for thing in list(_told):
        thing.after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_in_child)
