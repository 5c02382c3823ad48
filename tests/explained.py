"""Orders as the executor decides and journals them, without an executor: for tests of what reads the journal."""

import orjson

from common.config import Config, plain
from common.decide import Rules, answer, wish
from common.decision import before
from common.explain import context as explain_context
from common.fixed import SCALE
from common.journal import Journal
from common.orders import Order, State
from common.ring import Top
from common.risk import Account, Rate, Standing
from common.wire import Prediction

EPOCH = 7
NOW = 5_000_000_000_000  #: of the monotonic clock
WALL = 1_721_300_000_000_000_000  #: 2024-07-18T10:53:20Z, a second for each sequence later
S = State


def prediction(seq: int = 1, p_up: float = 0.9, symbol: int = 0, **changes) -> Prediction:
    return Prediction(symbol, 1, EPOCH, seq, 50 + seq, 1, WALL, 0xABCD, p_up, 1 - p_up, 1.5, 9_999 * SCALE // 100,
                      10_001 * SCALE // 100, NOW - 600_000, NOW - 500_000, NOW - 400_000, NOW - 300_000, NOW - 200_000,
                      NOW - 100_000)._replace(**changes)


def market(seq: int = 1, bid: int = 9_999, ask: int = 10_001) -> Top:
    """Prices in cents."""
    return Top(seq, 1, NOW - 50_000, NOW - 40_000, bid * SCALE // 100, 100 * SCALE, ask * SCALE // 100, 90 * SCALE)


def decided(config: Config, seq: int = 1, p_up: float = 0.9, symbol: str = "BTC-USD", name: str = "", held: int = 0,
            ) -> tuple[Order, str]:
    """An order and its context."""
    index = config.symbols.index(symbol)
    rules, standing = Rules.of(config, symbol), Standing(EPOCH, seq - 1)
    standing.position = held
    standing.exposure = abs(held) * 100
    account = Account(Rate(config.risk.max_orders_per_s))
    account.gross = standing.exposure
    asked, top, stood = prediction(seq, p_up, index), market(seq), before(standing, account)
    wanted = wish(asked, standing, account, rules, NOW)
    order = answer(wanted, asked, top, standing, account, rules, NOW + 1_000)
    assert type(order) is Order, order
    return order, explain_context.encode(asked, top, stood, seq - 1, NOW, NOW + 1_000, NOW + 9_000, name)


def write(journal: Journal, config: Config, seq: int = 1, p_up: float = 0.9, symbol: str = "BTC-USD",
          filled: float = 1.0, end: State = S.CANCELLED, held: int = 0) -> Order:
    """An order from its intent to its end, filled by that share at its limit, in two fills and a fee of 3 each."""
    at = WALL + seq * 1_000_000_000
    order, context = decided(config, seq, p_up, symbol, journal.configured(orjson.dumps(plain(config)).decode(), at),
                             held)
    journal.intent(order, context, at)
    journal.advance(order.client_id, S.SENT, at + 40_000)
    if end is S.SENT:
        return order
    journal.advance(order.client_id, S.ACKNOWLEDGED, at + 900_000, venue_id=f"v{seq}")
    whole = int(order.qty * filled)
    for number, qty in enumerate((whole // 2, whole - whole // 2), 1):
        state = S.FILLED if number == 2 and whole == order.qty else S.PARTLY_FILLED
        if qty:
            journal.fill(order, f"f{number}", qty, order.price, 3, state, at + 950_000 + number)
    if whole < order.qty:
        journal.advance(order.client_id, end, at + 1_000_000, "nothing more at this price")
    return order
