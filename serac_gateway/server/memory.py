"""What Python's garbage collector need not look at again and again."""

from __future__ import annotations

import ctypes
import gc


def freeze_gc() -> None:
    """Collect, and keep what is left out of every later collection, until this is called again.

    A gateway has some 140,000 objects of modules and models, which never become garbage; under load a full
    collection, which stops everything for 80 ms, came every thousand requests and found none. This itself
    takes as long. What is set aside and becomes garbage is freed at once, as ever, if it is in no cycle; a
    cycle waits for the next call.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def trim_malloc() -> None:
    """Have the C library return what it keeps of freed memory, if it can. Milliseconds, without the GIL.

    glibc keeps the pieces that models leave in the arenas of its threads: forty reloads of 38 MB of weights
    left a process 190 MiB larger, and 30 with this.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's alone
    if trim is not None:
        trim(0)
