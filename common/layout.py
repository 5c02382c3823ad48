"""The layout of the two rings, as numbers. One home for every column that two processes share.

Both rings have one writer and hold fixed-size records per symbol; record `seq` stands in slot
`seq % capacity`. A record is valid while its SEQ column equals the expected sequence: the writer sets
SEQ to 0, writes the rest, then sets SEQ. All times are monotonic nanoseconds but EVENT_NS, which is the
venue's own time (Unix ns). All prices and quantities are counts of 1e-8 (`common.fixed`).

    books ring, one record per tick (int64[TICK_WIDTH], 448 bytes):
      0       SEQ        16..25 BID_PX   best first; an absent level is price 0, quantity 0
      1..11   columns    26..35 BID_QTY
      12..15  spare      36..45 ASK_PX
                         46..55 ASK_QTY

    rows ring, one row per tick: float32[F] values, each written twice, half a block apart, so that the
    last W rows are always one contiguous [W, F] view; and int64[META_WIDTH] beside it.
"""

LEVELS = 10  #: price levels per side that a tick carries

# books ring: columns of a tick
SEQ = 0  #: sequence of the record in its symbol, from 1; 0 while it is being written
KIND = 1  #: one of the KIND_ values below
FLAGS = 2  #: FLAG_ bits below
VENUE_ID = 3  #: the venue's own id: last update id of a book change, trade id of a trade
EVENT_NS = 4  #: venue time, Unix ns; 0 where the venue gives none
RECV_NS = 5  #: frame left the socket
BOOK_NS = 6  #: book updated
TRADE_PX = 7
TRADE_QTY = 8  #: signed by the aggressor: above 0 a buyer lifted the ask
BID_PX = 16
BID_QTY = BID_PX + LEVELS
ASK_PX = BID_QTY + LEVELS
ASK_QTY = ASK_PX + LEVELS
TICK_WIDTH = ASK_QTY + LEVELS

KIND_BOOK = 1
KIND_TRADE = 2
KIND_STATE = 3  #: validity changed; the book columns hold the last known book
KIND_NAMES = {KIND_BOOK: "book", KIND_TRADE: "trade", KIND_STATE: "state"}

FLAG_VALID = 1  #: the book is synchronised with the venue
FLAG_RESET = 2  #: first tick after a snapshot: between it and the tick before, changes were not seen

# rows ring: columns of a row's meta record
ROW_SEQ = 0
ROW_RUN = 1  #: warm rows up to here since the book was last lost or a tick was missed: a window of W needs RUN >= W;
#: 0 on a row that must not be used. A short loss is bridged, and RUN begins again at 1 (`common.features.table`)
ROW_FLAGS = 2
ROW_VENUE_ID = 3
ROW_EVENT_NS = 4
ROW_RECV_NS = 5
ROW_BOOK_NS = 6
ROW_WRITTEN_NS = 7
ROW_BID = 8
ROW_ASK = 9
ROW_KIND = 10
ROW_VOL = 11  #: rolling volatility, `vol_100` of the features, in 1e-9 bps per tick: it scales the size of an order
META_WIDTH = 16
