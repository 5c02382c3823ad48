"""Playing a recording into a market: what each line of a capture means for the books.

    player = Player(market, venue, clock)
    for recv_ns, text in captures.tape(paths):
        ticks = player.play(recv_ns, text)

The clock is moved to each line before it is played, so a market that stamps and waits by it sees the recording's own
time. What the market wants sent or asked for is nobody's business here: the answers stand in the recording.

Cost: below 200 ns a frame beyond the market's own.
"""

from common import capture_lines
from common.capture_lines import MARK, Connect, Control, Disconnect, Frame, Header, Http, Missed, Stale, parse
from common.clock import ManualClock
from common.errors import VenueError
from common.events import Venue
from common.market import Market, State


class Player:
    """`venue` is the one that `market` was made with."""

    def __init__(self, market: Market, venue: Venue, clock: ManualClock) -> None:
        self.market, self.venue, self._clock = market, venue, clock
        self._by_http = [venue.snapshot_request(i) is not None for i in range(len(venue.symbols))]
        self._index = {name: i for i, name in enumerate(venue.symbols)}
        self._header: Header | None = None
        self.missed = 0  #: messages that the recorder did not get

    def play(self, recv_ns: int, text: bytes) -> int:
        """One line; returns the number of ticks written. Raises VenueError for a control line that is damaged, or
        is of another venue."""
        self._clock.set(recv_ns)
        if text.startswith(MARK):
            written = self._control(recv_ns, parse(text))
        else:
            written = self.market.on_frame(text, recv_ns)
        if self.market.outbox:
            self.market.outbox.clear()  # nobody is there to have it
        return written

    def _control(self, recv_ns: int, line: Control) -> int:
        match line:
            case Header():
                return self._begin(recv_ns, line)
            case Connect():
                if line.handover:  # the same books go on, but the new connection's numbering is its own
                    self.market.resume()
                    return 0
                written = self.market.on_disconnect(recv_ns)
                self.market.begin()
                self.market.on_connect(recv_ns)
                return written
            case Disconnect():
                return self.market.on_disconnect(recv_ns)
            case Missed():
                self.missed += line.count
                return self.market.on_disconnect(recv_ns)
            case Frame():
                return self.market.on_frame(line.frame, recv_ns)
            case Stale():
                if line.symbol in self._index:
                    return self.market.give_up(self._index[line.symbol], recv_ns)
            case Http():
                if line.symbol in self._index and line.status == 200:
                    return self.market.on_snapshot(self._index[line.symbol], line.body, recv_ns)
            case capture_lines.State():
                return self._state(recv_ns, line)
        return 0  # what was sent, and the end of a file, change no book

    def _begin(self, recv_ns: int, header: Header) -> int:
        """A file begins: with the books as they are if it continues the one before."""
        if header.venue != self.venue.name:
            raise VenueError("a recording is of another venue", where=f"venue={header.venue}, not {self.venue.name}",
                             remedy="play recordings of several venues one by one")
        before, self._header = self._header, header
        if before is not None and header.session and (header.session, header.part) == (before.session,
                                                                                       before.part + 1):
            return 0
        written = self.market.on_disconnect(recv_ns)
        self.market.begin()
        return written

    def _state(self, recv_ns: int, line: capture_lines.State) -> int:
        """Where recording began in the middle. A book that is valid has been followed up to here: it says the same."""
        index = self._index.get(line.symbol)
        if index is None or self.market.symbols[index].state is State.VALID:
            return 0
        if self._by_http[index]:
            return self.market.on_snapshot(index, line.frame, recv_ns)
        return self.market.on_frame(line.frame, recv_ns)
