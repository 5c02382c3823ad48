"""How much flows on a link: counted here, told once a second. Pure: the time is given."""

from collections import Counter
from typing import Any

SECOND = 1_000_000_000


class Rates:
    """Counts of the interval that began at `start_ns`, and `missed` since the beginning."""

    def __init__(self, link: str, start_ns: int) -> None:
        self.link, self._begun, self._start = link, start_ns, start_ns
        self._messages = self._bytes = self._missed = self._told_missed = 0
        self._symbols: Counter[str] = Counter()

    def add(self, size: int, symbols: list[str]) -> None:
        """A message of so many bytes, and the symbols of its records that pass the filter, "" for one that has none."""
        self._messages += 1
        self._bytes += size
        self._symbols.update(symbols)

    def missed(self, total: int) -> None:
        """So many messages were missed since the beginning."""
        self._missed = total

    def due(self, now_ns: int) -> bool:
        return now_ns - self._start >= SECOND

    def take(self, now_ns: int) -> dict[str, Any]:
        """The interval that ends at `now_ns`, and begins the next. Rates are per second, `symbols` has the records
        of each, `missed` counts messages of this interval."""
        seconds = max(now_ns - self._start, 1) / SECOND
        told = {"seconds": round((now_ns - self._begun) / SECOND, 3), "link": self.link,
                "messages_per_s": round(self._messages / seconds, 1), "bytes_per_s": round(self._bytes / seconds, 1),
                "records_per_s": round(self._symbols.total() / seconds, 1), "messages": self._messages,
                "records": self._symbols.total(),
                "symbols": dict(sorted((name, count) for name, count in self._symbols.items() if name)),
                "missed": self._missed - self._told_missed}
        self._start, self._told_missed = now_ns, self._missed
        self._messages = self._bytes = 0
        self._symbols.clear()
        return told


def line(told: dict[str, Any]) -> str:
    """An interval for people."""
    each = "  ".join(f"{name} {count:,}" for name, count in told["symbols"].items())
    return (f"{told['seconds']:8.1f} s  {told['link']}  {told['messages_per_s']:,.0f} messages/s  "
            f"{told['bytes_per_s']:,.0f} bytes/s  {told['records_per_s']:,.0f} records/s  missed {told['missed']:,}"
            + (f"  {each}" if each else ""))
