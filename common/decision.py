"""A decision with all that it was made of, at a fixed width: told, kept, and made again. Pure.

The executor tells one on its tap `decisions` for each prediction that it takes up, while somebody listens. What it was
made of is the prediction, the two moments at which it was looked at, the newest book then, and where the symbol and
the account stood before; what it was made by is the configuration (`Rules`) and `common.decide`. So `again` gives the
same verdict, bit for bit, at any time and on any machine, or the two versions differ.

Prices, quantities and money are counts of 1e-8, times monotonic ns.
"""

import struct
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import NamedTuple

from common.decide import ALL_REASONS, OUTBOUND_REASONS, Rules, answer, wish
from common.errors import WireError
from common.orders import Order
from common.ring import Top
from common.risk import Account, Rate, Refusal, Standing
from common.wire import Prediction, form

#: what a reason is called, by its number in a decision; 0 is none
REASONS = ("", *ALL_REASONS, *OUTBOUND_REASONS)

class Verdict(NamedTuple):
    """What came of a decision: the last fields of it but one."""

    reason: int  #: number of the reason of a refusal; 0: an order
    value: float  #: of a refusal
    limit: float
    side: int  #: of an order
    qty: int
    price: int


Before = tuple[int | str, ...]  #: as of `before`


class Decision(NamedTuple):
    """The fields of `wire.Prediction` first."""

    symbol: int
    worker: int
    epoch: int
    seq: int
    venue_id: int
    kind: int
    event_ns: int
    model: int
    p_up: float
    p_down: float
    vol: float
    bid: int
    ask: int
    recv_ns: int
    book_ns: int
    row_ns: int
    dispatched_ns: int
    start_ns: int
    end_ns: int
    wish_ns: int  #: when it was asked what the prediction is worth
    answer_ns: int  #: when the market was looked at; 0: it was not
    top_seq: int  #: of the newest tick then; 0: there was none, or nobody looked
    top_flags: int
    top_recv_ns: int
    top_book_ns: int
    top_bid: int
    top_bid_qty: int
    top_ask: int
    top_ask_qty: int
    followed: int  #: the stream that the symbol was followed in, and what follows is of its `Standing`
    newest: int
    unresolved: int
    position: int
    open_buy: int
    open_sell: int
    exposure: int
    order_ns: int
    entered_ns: int
    cost: int
    low: int
    high: int
    last_side: int
    last_qty: int
    last_price: int
    repeat_buy_ns: int
    repeat_sell_ns: int
    rejects: int
    rejected_ns: int
    barred: int  #: number of a reason, and what follows is of the `Account`
    gross: int
    day_loss: int
    net_low: int
    net_high: int
    open_orders: int
    drawdown: int
    mode: int
    offset_ns: int
    trained_ns: int
    rate_full_ns: int
    reason: int  #: and what follows is the `Verdict`
    value: float
    limit: float
    side: int
    qty: int
    price: int
    outcome: int  #: number of the reason why there is no order in the end: that of the refusal, or of the way out

    @property
    def prediction(self) -> Prediction:
        return Prediction._make(self[:_PREDICTION])

    @property
    def top(self) -> Top | None:
        """The market that was looked at; None where there was none, or nobody looked."""
        return Top._make(self[_TOP:_TOP + len(Top._fields)]) if self.top_seq else None

    @property
    def verdict(self) -> Verdict:
        return Verdict._make(self[_VERDICT:-1])


_PREDICTION = len(Prediction._fields)
_TOP = Decision._fields.index("top_seq")
_VERDICT = Decision._fields.index("reason")
#: of `Standing` and of `Account`, in the order in which they are told
_STANDING = ("epoch", "seq", "unresolved", "position", "open_buy", "open_sell", "exposure", "order_ns", "entered_ns",
             "cost", "low", "high", "last_side", "last_qty", "last_price", "repeat_buy_ns", "repeat_sell_ns",
             "rejects", "rejected_ns")
_ACCOUNT = ("barred", "gross", "day_loss", "net_low", "net_high", "open_orders", "drawdown", "mode", "offset_ns",
            "trained_ns")
_standing, _account = attrgetter(*_STANDING), attrgetter(*_ACCOUNT)
_FOLLOWED = Decision._fields.index("followed")
FORMAT = form(Prediction) + "qq" + "qqqqqqqq" + "IqIqqqqq" + "qqqqbqqqqIq" + "Hqq" + "qqIqBqq" + "q" + "HddbqqH"
_CODER = struct.Struct(FORMAT)
SIZE = _CODER.size  #: bytes
_NUMBER = {reason: number for number, reason in enumerate(REASONS)}
_NO_TOP = (0,) * len(Top._fields)
_NO_ORDER = (0, 0, 0)


def before(standing: Standing, account: Account) -> Before:
    """Where symbol and account stand, to be taken before a decision that may move them. About 0.8 us."""
    return (*_standing(standing), *_account(account), account.rate.full_ns)


def encode(prediction: Prediction, wish_ns: int, answer_ns: int, top: Top | None, before: Before,
           verdict: Order | Refusal, outcome: Refusal | None) -> bytes:
    """The record of a decision. Raises WireError for a number that no record can hold. About 3 us."""
    stood, barred, counted = before[:len(_STANDING)], before[len(_STANDING)], before[len(_STANDING) + 1:]
    if type(verdict) is Order:
        told = (0, 0.0, 0.0, verdict.side, verdict.qty, verdict.price)
    else:
        told = (_NUMBER[verdict.reason], verdict.value, verdict.limit, *_NO_ORDER)
    try:
        return _CODER.pack(*prediction, wish_ns, answer_ns, *(top or _NO_TOP), *stood, _NUMBER[barred], *counted,
                           *told, _NUMBER[outcome.reason] if outcome is not None else 0)
    except (struct.error, OverflowError) as error:
        raise WireError("a decision cannot be told", where=f"symbol={prediction.symbol}, seq={prediction.seq}: {error}"
                        ) from None


def decode(message: bytes) -> Iterator[Decision]:
    """The decisions of a message: one record after the other. Raises WireError where it is none."""
    if len(message) % SIZE:
        raise WireError("a message of decisions has a wrong length", where=f"{len(message)} bytes, {SIZE} each")
    return map(Decision._make, _CODER.iter_unpack(message))


def again(told: Decision, rules: Rules, orders_per_s: float, reasons: Sequence[str] = REASONS) -> Verdict:
    """The verdict that comes out now, from what `told` was made of. `reasons` are those of the version that told it; a
    reason that is not among them gets the number after the last. About 15 us."""
    standing, account = Standing(0), Account(Rate(orders_per_s, told.rate_full_ns))
    values = iter(told[_FOLLOWED:_VERDICT - 1])
    for thing, names in ((standing, _STANDING), (account, _ACCOUNT)):
        for name, value in zip(names, values):
            setattr(thing, name, value)
    account.barred = reasons[told.barred]
    prediction = told.prediction
    verdict = wish(prediction, standing, account, rules, told.wish_ns)
    if type(verdict) is not Refusal:
        verdict = answer(verdict, prediction, told.top, standing, account, rules, told.answer_ns)
    if type(verdict) is Order:
        return Verdict(0, 0.0, 0.0, verdict.side, verdict.qty, verdict.price)
    number = reasons.index(verdict.reason) if verdict.reason in reasons else len(reasons)
    return Verdict(number, float(verdict.value), float(verdict.limit), *_NO_ORDER)
