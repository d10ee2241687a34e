"""Processes of a job's own for what keeps a processor busy, while the handler itself stores what they found."""

import gc
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

from jobs.child import die_with

HELPERS = min(2, os.cpu_count() or 1)


@contextmanager
def helpers() -> Iterator[ProcessPoolExecutor]:
    """In the job's process group, counted to its memory and CPU; they end with it, whatever ends it.

    Make them first of all in a handler: while there is no connection and no thread that they could inherit.
    """
    pool = ProcessPoolExecutor(HELPERS, mp_context=multiprocessing.get_context("fork"), initializer=begin, initargs=(os.getpid(),))
    pool.submit(int).result()  # starts them now
    try:
        yield pool
    except BaseException:  # a cancel waits for nobody; they end with the job
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


def begin(parent: int) -> None:
    die_with(parent)
    gc.freeze()  # what was inherited is no garbage, and looking at it would copy it
