"""The page: whole, self-contained, and everything from outside escaped."""

from html.parser import HTMLParser

from common.backtest.html import page
from tests.common.backtest.test_plot import FILLS, run

_VOID = {"meta", "br", "link", "img"}


class Checker(HTMLParser):
    """Every tag is closed in order; collects addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag, attributes) -> None:
        if tag not in _VOID:
            self.open.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href") and value]

    def handle_startendtag(self, tag, attributes) -> None:
        pass

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        self.words.append(data)


def tree(fills):
    told, _ = run(fills)
    told["decisions"] |= {"predictions": 60}
    return told | {"model": {"name": "<b>bold</b>", "in_sample": 0.25}, "timing": {}, "config": {},
                   "recording": {"frames": 9, "ticks": 8},
                   "captures": [{"name": "a&b.gz", "bytes": 5, "sha256": "ab" * 32}]}


def test_a_page_is_whole_fetches_nothing_and_escapes_names():
    names = ("equity", "positions", "costs", "markout", "calibration", "decisions")
    for fills in (FILLS, []):
        pictures = {name: f"<svg><g>{name}</g></svg>" for name in names}
        text = page(tree(fills), pictures)
        checker = Checker()
        checker.feed(text)
        assert not checker.open and not checker.links and "<script" not in text
        words = " ".join(checker.words)
        assert all(word in words for word in (*names, "<b>bold</b>", "a&b.gz", "X & Y", "net profit",
                                              "25% of the ticks are of the time that the model learnt from"))
        assert text == page(tree(fills), pictures)
