from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from dagaug.runtime.prefetch import map_ahead


@pytest.mark.parametrize("ahead", [0, 1, 5, 100])
def test_results_come_in_the_order_of_the_items(ahead: int) -> None:
    with ThreadPoolExecutor(3) as pool:
        assert list(map_ahead(lambda item: item * item, range(20), pool, ahead)) == [n * n for n in range(20)]


def test_only_the_given_number_of_items_is_drawn_ahead_of_use() -> None:
    drawn = itertools.count()
    with ThreadPoolExecutor(2) as pool:
        results = map_ahead(lambda item: item, drawn, pool, 3)
        assert [next(results), next(results)] == [0, 1]
        assert next(drawn) == 5
        results.close()


def test_the_first_error_is_raised_in_order_and_waiting_calls_are_cancelled() -> None:
    begun = []
    release = threading.Event()

    def work(item: int) -> int:
        begun.append(item)
        if item == 1:
            raise ValueError("item 1")
        if item == 2:
            release.wait(10)
        return item

    with ThreadPoolExecutor(1) as pool:
        results = map_ahead(work, range(6), pool, 4)
        assert next(results) == 0
        with pytest.raises(ValueError, match="item 1"):
            next(results)
        release.set()
    assert 5 not in begun
