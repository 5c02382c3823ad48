"""How reports draw: one style, and the same bytes from the same numbers."""

import pytest

from common.figures import INK, money, styled, svg, utc_axis

pytest.importorskip("matplotlib")


def paint(figure) -> None:
    axes = figure.subplots()
    axes.plot([0.0, 1.0], [-12_345.0, 1.0])
    utc_axis(axes, 0.0, 1.0, "when", (3, 8))
    money(axes.yaxis)
    axes.set_title("what")


def test_a_figure_is_one_svg_element_and_the_same_twice():
    one = svg((5.0, 3.0), paint, "one")
    assert one == svg((5.0, 3.0), paint, "one") and one.startswith("<svg") and one.rstrip().endswith("</svg>")
    for words in ("what", "when", "\u221212,000", INK):
        assert words in one, words


def test_ids_of_two_figures_on_one_page_are_not_the_same():
    import re

    ids = [set(re.findall(r'id="([pm][0-9a-f]{10})"', svg((5.0, 3.0), paint, salt))) for salt in ("one", "two")]
    assert all(ids) and not ids[0] & ids[1]


def test_the_style_is_for_figures_within_it_alone():
    from matplotlib import rcParams

    before = rcParams["text.color"]
    with styled("x"):
        assert rcParams["text.color"] == INK
    assert rcParams["text.color"] == before
