"""The expressions of the alert rules and of the dashboard, and the metrics that they name."""

import json
import re
from pathlib import Path

from common.watch import metrics

FOLDER = Path(metrics.__file__).parent
RULES, DASHBOARD = FOLDER / "rules.yaml", FOLDER / "dashboard.json"


def of_rules() -> list[str]:
    """Of a YAML that puts an expression on one line, or on those below `>-`."""
    found = re.findall(r"^ +expr: (?:>-\n((?: {10}.*\n)+)|(.*)\n)", RULES.read_text(), re.M)
    return [" ".join(folded.split()) or plain for folded, plain in found]


def of_dashboard() -> list[str]:
    def within(tree):
        if isinstance(tree, dict):
            yield from (value for key, value in tree.items() if key in ("expr", "definition"))
            for value in tree.values():
                yield from within(value)
        elif isinstance(tree, list):
            for value in tree:
                yield from within(value)

    return list(within(json.loads(DASHBOARD.read_text())))


def expressions() -> list[str]:
    return of_rules() + of_dashboard()


def names(expression: str) -> set[str]:
    """Those of metrics of ours; `up` is Prometheus' own."""
    return set(re.findall(r"\balpha_\w+", expression))
