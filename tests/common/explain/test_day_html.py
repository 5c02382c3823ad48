"""The HTML report of a day: everything in one file, nothing fetched, nothing that a name could break."""

from common.explain.day import report
from common.explain.day_html import page
from common.positions import Position

PICTURES = {name: f"<svg>{name}</svg>" for name in ("profit", "positions", "latency", "refusals")}


def test_the_page_holds_the_report_and_fetches_nothing():
    orders = [{"client_id": "a", "symbol": "<b>&", "state": "rejected", "reason": "<script>", "created_ns": 1}]
    fills = [{"client_id": "a", "symbol": "<b>&", "side": "SELL", "qty": 10**8, "price": 10**8, "fee": 10**7,
              "at_ns": 1_721_260_800_000_000_005}]
    tree = report("2024-07-18", orders, [{}], [], fills, {"<b>&": Position(10**8, 3 * 10**16)})
    text = page({"instance": "desk", "journal": "journal.db", **tree}, PICTURES)
    assert text == page({"instance": "desk", "journal": "journal.db", **tree}, PICTURES)
    for words in ("<title>desk: 2024-07-18</title>", "&lt;b&gt;&amp;", "&lt;script&gt;", "\u22122.10", "\u2013",
                  *PICTURES.values()):
        assert words in text, words
    assert "<script>" not in text and "<b>&" not in text and "http" not in text
    assert 'class="loss">\u22122.10<' in text
