"""Captures for tests: written line by line, and played without any socket, which is the truth."""

from common import capture_lines, captures
from common.capture_lines import Connect, Header, Http
from common.clock import ManualClock
from common.events import Delta
from common.market import Market
from common.player import Player
from common.ring import Books
from common.venues import create
from tests.common.venues.samples import Sample

MS = 10**6


def write(path, lines, step_ns: int = 2 * MS):
    """A capture of these lines (control lines, or frames as bytes), evenly spaced."""
    with open(path, "wb") as file:
        for i, line in enumerate(lines):
            text = capture_lines.text(line) if isinstance(line, bytes) else capture_lines.encode(line)
            file.write(b"%d %s\n" % (10**18 + i * step_ns, text))
    return path


def captured(venue: str, sample: Sample, most: int = 400) -> list:
    """The lines that a recorder would have written."""
    lines: list = [Header(venue, tuple(sample.symbols)), Connect("wss://venue.example/ws")]
    made = create(venue, sample.symbols)
    made.begin()
    answered = False
    for frame in sample.frames[:most]:
        lines.append(frame)
        if sample.snapshot and not answered and any(isinstance(event, Delta) for event in made.decode(frame)):
            answered = True
            lines.append(Http(sample.symbols[1], made.snapshot_request(1).path, 200, sample.snapshot))
    return lines


def truth(path) -> Market:
    """What a recording means."""
    told = captures.describe([path])
    clock, venue = ManualClock(1), create(*told)
    market = Market(venue, Books.private(told.symbols, 4096), clock)
    player = Player(market, venue, clock)
    for recv_ns, text in captures.tape([path]):
        player.play(recv_ns, text)
    return market


def same(follower, expected: Market, *symbols: int) -> bool:
    """Whether a follower has the books of these symbols, valid."""
    for symbol in symbols:
        whole = expected.whole(symbol)
        assert whole is not None, "the recording ends with a valid book"
        if follower.book(symbol) != (whole.levels.tolist(), whole.n_bids):
            return False
    return True
