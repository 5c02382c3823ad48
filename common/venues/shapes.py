"""What the templates of a venue mean, as numbers: for compiled code that plays frames without an object for each.

A venue whose common frames are all quotes, trades and changes of a book, each a frame by itself, says so with
`Shapes`; a frame that fits none of those templates is for `Venue.decode`. Both ways must mean the same.
"""

from typing import NamedTuple, Sequence

import numpy as np

from common.scan import Scanner

OTHER, QUOTE, TRADE, DELTA = range(4)  #: what a frame of a template is

# Columns of a role. Beyond the first they name fields of the template, from 0, in its order.
KIND = 0
SYMBOL = 1
# of a quote: the update id of the book it is of, and the best prices
UPDATE_ID, BID, BID_QTY, ASK, ASK_QTY = range(2, 7)
# of a trade
TRADE_ID, TRADE_NS, PRICE, QTY, SELLS = range(2, 7)  #: SELLS: whether the aggressor sold; or NEVER or ALWAYS
# of a change, whose levels are bids, then asks
LAST_ID, DELTA_NS, N_BIDS, N_ASKS, JOINS, STEP = range(2, 8)  #: it follows where JOINS is last_id + STEP: no field
WIDTH = 8

NEVER, ALWAYS = -1, -2


class Shapes(NamedTuple):
    scanner: Scanner
    roles: np.ndarray  #: int64[templates, WIDTH]


def shapes(scanner: Scanner, *roles: Sequence[int]) -> Shapes:
    """`roles` are those of the first templates, in order; the others are OTHER."""
    table = np.zeros((scanner.templates, WIDTH), np.int64)
    for row, role in zip(table, roles, strict=False):
        row[:len(role)] = role
    return Shapes(scanner, table)


def quote(symbol: int, update_id: int, bid: int, bid_qty: int, ask: int, ask_qty: int) -> tuple[int, ...]:
    return QUOTE, symbol, update_id, bid, bid_qty, ask, ask_qty


def trade(symbol: int, trade_id: int, event_ns: int, price: int, qty: int, sells: int) -> tuple[int, ...]:
    return TRADE, symbol, trade_id, event_ns, price, qty, sells


def delta(symbol: int, last_id: int, event_ns: int, n_bids: int, n_asks: int, joins: int,
          step: int) -> tuple[int, ...]:
    return DELTA, symbol, last_id, event_ns, n_bids, n_asks, joins, step
