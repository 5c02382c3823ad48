"""What a venue's clock shows, from its answers to requests for its time. Pure.

A signed request says when it was made, and is refused (-1021) if that is a second or more after the venue's time, or
more than recvWindow before it. So the venue's clock is measured, and requests are stamped by it:

    offset = what the venue's clock showed - the middle between the first byte of the request and its answer

It is at most half of the round trip wrong, so of SAMPLES answers in a row the quickest counts. It is an offset to the
monotonic clock of this machine: whoever sets the wall clock changes nothing. It is measured anew every EVERY, and when
the venue refuses a time; until that has an answer, nothing should be signed.
"""

SAMPLES = 3
EVERY_NS = 300_000_000_000
AGAIN_NS = 1_000_000_000  #: after a request that had no useful answer


class VenueClock:
    """`due` says when to ask; each question is announced by `asked` and ends with `told` or `missed`."""

    def __init__(self, clock) -> None:
        self._clock = clock
        self._offset_ns = 0  # Unix time at the venue less monotonic time here
        self._best: tuple[int, int] | None = None  # round trip and offset, the quickest of this round
        self._left = SAMPLES  # answers that this round still wants
        self._asking = False
        self._due_ns = 1
        self._since_ns = 0  # when what is in force was learnt
        self._doubted_ns = 0  # answers to what was asked before count no more
        self.known = False
        self.ever = False  #: it was known once
        self.error = "it has not been asked for yet"  #: why it is not known

    def now_ms(self) -> int:
        """Unix time at the venue, ms. Means nothing before it was known once."""
        return (self._clock.monotonic_ns() + self._offset_ns) // 1_000_000

    def due_ns(self) -> int:
        """When to ask, monotonic; 0 while an answer is awaited."""
        return 0 if self._asking else self._due_ns

    def due(self, now: int) -> bool:
        return not self._asking and now >= self._due_ns

    def asked(self) -> None:
        self._asking = True

    def told(self, server_ms: int, sent_ns: int, done_ns: int) -> None:
        """The venue's clock has shown `server_ms` between two times of ours."""
        self._asking = False
        if sent_ns < self._doubted_ns:
            return
        # It shows whole milliseconds: on average half of one has passed.
        sample = done_ns - sent_ns, server_ms * 1_000_000 + 500_000 - (sent_ns + done_ns) // 2
        self._best = min(self._best or sample, sample)
        self._left -= 1
        if not self.known or not self._left:
            self._offset_ns, self._since_ns = self._best[1], done_ns
            self.known, self.ever, self.error = True, True, ""
        if not self._left:
            self._begin(done_ns + EVERY_NS)

    def missed(self, reason: str) -> None:
        """The question had no useful answer."""
        self._asking, self._due_ns = False, self._clock.monotonic_ns() + AGAIN_NS
        if not self.known:
            self.error = reason

    def doubt(self, signed_ns: int) -> None:
        """The venue has refused the time of a request that was signed then. One that was signed before the clock was
        last measured says nothing of what is known now."""
        if self.known and signed_ns >= self._since_ns:
            self.known, self.error = False, "the venue has refused a time, and it is measured anew"
            self._doubted_ns = self._clock.monotonic_ns()
            self._begin(1)

    def _begin(self, due_ns: int) -> None:
        self._best, self._left, self._due_ns = None, SAMPLES, due_ns
