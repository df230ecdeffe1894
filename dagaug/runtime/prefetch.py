"""Calls in threads ahead of their use: results in order, with a limited number of calls in flight."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future
from typing import TypeVar

__all__ = ["map_ahead"]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def map_ahead(
    function: Callable[[_Item], _Result], items: Iterable[_Item], pool: Executor, ahead: int
) -> Generator[_Result, None, None]:
    """Yield ``function(item)`` for each item, in order, while the pool computes the next ``ahead`` items.

    ``Executor.map`` would submit all items at once, and so hold all results in memory. Items are drawn in the
    caller's thread. Calls that have not begun are cancelled when the generator is closed.

    Args:
        function: is called in the pool; the first error that it raises is raised here.
        items: may be endless.
        pool: computes the calls.
        ahead: calls that may wait, run, or hold a finished result, beside the one that is yielded; at least 0.
    """
    pending: deque[Future[_Result]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
