"""Prefetch: every item once and in order, one made early and not two, errors where the item was wanted, and an end."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Iterator

import pytest

from sailvit.data.loading.prefetch import Prefetch


class Items:
    """Counts up, noting what it made and in which threads."""

    def __init__(self, number: int, *, bad: int = -1) -> None:
        self.number, self.bad = number, bad
        self.made: list[int] = []
        self.threads: set[int] = set()

    def __iter__(self) -> Iterator[int]:
        for item in range(self.number):
            self.threads.add(threading.get_ident())
            if item == self.bad:
                raise OSError("the disk is gone")
            self.made.append(item)
            yield item


def settled(items: Items, count: int) -> bool:
    """Whether `count` items were made within a second, and no more a little later."""
    end = time.monotonic() + 1
    while len(items.made) < count and time.monotonic() < end:
        time.sleep(0.001)
    time.sleep(0.02)
    return len(items.made) == count


@pytest.mark.parametrize("number", [0, 1, 7])
def test_items_come_once_and_in_order_from_another_thread(number):
    items = Items(number)
    with Prefetch(iter(items)) as prefetch:
        assert list(prefetch) == list(range(number))
    assert threading.get_ident() not in items.threads


def test_false_items_are_items():
    with Prefetch(iter([0, None, ()])) as prefetch:
        assert list(prefetch) == [0, None, ()]


def test_one_item_is_made_while_one_is_used_and_not_two():
    items = Items(5)
    with Prefetch(iter(items)) as prefetch:
        for used in prefetch:
            assert settled(items, min(used + 2, 5))


def test_an_error_comes_where_the_item_was_wanted():
    with Prefetch(iter(Items(5, bad=2))) as prefetch:
        steps = iter(prefetch)
        assert [next(steps), next(steps)] == [0, 1]
        with pytest.raises(OSError, match="the disk is gone"):
            next(steps)


def test_leaving_early_waits_for_the_item_being_made_and_lets_go_of_the_iterator():
    finished = threading.Event()

    def slow() -> Iterator[int]:
        try:
            yield 0
            time.sleep(0.1)
            yield 1
        finally:
            finished.set()

    before = threading.active_count()
    steps = slow()
    gone = weakref.ref(steps)
    with Prefetch(steps) as prefetch:
        del steps
        assert next(iter(prefetch)) == 0
    del prefetch
    gc.collect()
    assert finished.is_set()
    assert gone() is None
    assert threading.active_count() == before
