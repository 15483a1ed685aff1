"""Photos are read ahead, no more than so many, and come in order."""

import threading

import pytest

from piip.data.image_files import ImageError
from piip.tasks.read_ahead import photos_of_share
from piip.tasks.unread import Missing


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_in_order_and_no_more_ahead_than_workers(workers: int) -> None:
    begun, lock, missing = [], threading.Lock(), Missing()

    def load(position: int) -> int:
        with lock:
            begun.append(position)
        if position == 4:
            raise ImageError("4.png: broken")
        return 10 * position

    found = []
    for position, photo in photos_of_share(load, 8, workers, missing):
        found.append((position, photo))
        with lock:
            assert len(begun) <= 1 + position + workers
    assert found == [(position, 10 * position) for position in range(8) if position != 4]
    assert missing.reasons == {4: "4.png: broken"}
    assert sorted(begun) == list(range(8))


def test_workers_read_while_a_photo_is_looked_at() -> None:
    """The second is read while the first is held; without a worker that would never end."""
    second = threading.Event()

    def load(position: int) -> int:
        if position == 1:
            second.set()
        return position

    photos = photos_of_share(load, 3, 1, Missing())
    next(photos)
    assert second.wait(60)
    assert [position for position, _ in photos] == [1, 2]


def test_another_error_is_an_error() -> None:
    def load(position: int) -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(photos_of_share(load, 3, 2, Missing()))
