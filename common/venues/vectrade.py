"""The VecTrade gateway: one multiplexed connection, snapshots in band, a sequence per order book.

Text frames of compact JSON, decimals as strings, times in Unix milliseconds:

    orderbook:SYMBOL   snapshot, then deltas, each with a sequence one above the last; quantity "0" removes
    trades:SYMBOL      side is that of the aggressor
    ticker:SYMBOL      best bid and ask as of `sequence` of the order book: audits our book

A gap is healed by unsubscribing from the order book and subscribing again, which brings a new snapshot.
"""

from typing import Sequence

import orjson

from common.errors import ContractError, VenueError
from common.events import GAP, JOINS, OLDER, Delta, Event, HttpRequest, Notice, Quote, Snapshot, Trade
from common.scan import Scanner
from common.venues import fields

BOOK, TRADES, TICKER = "orderbook", "trades", "ticker"

_DELTA, _TICKER, _BUY, _SELL = range(4)
_TEMPLATES = (
    b'{"channel":"orderbook:%s","type":"delta","sequence":%i,"timestamp":%i,"bids":%l,"asks":%l}',
    b'{"channel":"ticker:%s","type":"ticker","sequence":%i,"timestamp":%i,"bid":"%d","bid_size":"%d",'
    b'"ask":"%d","ask_size":"%d","last":"%d"}',
    b'{"channel":"trades:%s","type":"trade","id":%i,"timestamp":%i,"price":"%d","quantity":"%d","side":"BUY"}',
    b'{"channel":"trades:%s","type":"trade","id":%i,"timestamp":%i,"price":"%d","quantity":"%d","side":"SELL"}',
)
