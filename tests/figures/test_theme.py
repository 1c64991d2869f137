"""Tokens: stylesheet and figures speak of the same colours, and words can be read on what they stand on."""

import re
from pathlib import Path

import pytest

import explorer.figures.theme as theme_module
from explorer.figures.gpa_map import _LABEL_ROLE
from explorer.figures.theme import DEFAULT, THEMES, theme_named

(CSS,) = (path.read_text(encoding="utf-8") for path in Path(theme_module.__file__).parents[1].rglob("tokens.css"))
READABLE = 4.5
"""WCAG contrast of text; product row 78."""


def colors_in_css(name):
    block = re.search(rf'\[data-theme="{name}"\] {{(.*?)}}', CSS, re.DOTALL)
    assert block is not None
    return dict(re.findall(r"--([a-z0-9-]+): (#[0-9A-Fa-f]{6});", block[1]))


@pytest.mark.parametrize("name", THEMES)
def test_the_stylesheet_has_the_tokens_colours(name):
    tokens = theme_named(name).colors

    assert len(tokens) > 40
    assert colors_in_css(name) == tokens


def test_a_dark_system_gets_the_dark_colours():
    block = re.search(r"prefers-color-scheme: dark\) {(.*)", CSS, re.DOTALL)

    system = dict(re.findall(r"--([a-z0-9-]+): (#[0-9A-Fa-f]{6});", block[1].partition("@media")[0]))

    assert theme_named("dark").colors.items() <= system.items()


@pytest.mark.parametrize("font", ["ui", "mono"])
def test_the_fonts_are_the_same(font):
    assert getattr(DEFAULT, f"{font}_font").replace("'", '"') == re.search(rf"--font-{font}: (.*?);", CSS)[1]


def luminance(color):
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_the_measure_is_the_one_of_wcag():
    assert contrast("#000000", "#FFFFFF") == pytest.approx(21)
    assert contrast("#777777", "#FFFFFF") == pytest.approx(4.48, abs=0.01)


WORDS_ON = [
    # role of the words, role of what is behind them
    *((ink, ground) for ink in ("ink", "ink-2", "ink-3") for ground in ("canvas", "surface", "surface-2", "sunken")),
    *((role, "surface") for role in ("internal", "external", "lost", "rejected", "new-line", "accent")),
    *((role, "canvas") for role in ("internal", "external", "lost", "rejected", "new-line")),
    ("internal", "internal-soft"),
    ("external", "external-soft"),
    ("lost", "lost-soft"),
    ("rejected", "rejected-soft"),
    ("rejected-ink", "rejected-fill"),
    ("accent-ink", "accent"),
    ("ink", "accent-soft"),
    ("ink", "dirty-soft"),
    ("slot-ink", "slot-fill"),
    ("slot-ink", "ro-fill"),
    ("invalid-ink", "invalid-fill"),
    ("ink", "new-fill"),
    ("surface", "huge-yes"),
    ("ink", "huge-no"),
]


@pytest.mark.parametrize("name", THEMES)
@pytest.mark.parametrize(("words", "ground"), WORDS_ON)
def test_words_can_be_read(name, words, ground):
    colors = theme_named(name).colors

    assert contrast(colors[words], colors[ground]) >= READABLE


@pytest.mark.parametrize("name", THEMES)
@pytest.mark.parametrize("style", [*_LABEL_ROLE, "slot", "read_only", "dirty"])
def test_labels_can_be_read_on_the_fill_they_stand_on(name, style):
    theme = theme_named(name)
    fill = theme.fills.get(style, {}).get("fillcolor", "")  # a style without a fill is drawn on the surface
    ground = fill if re.fullmatch(r"#[0-9A-Fa-f]{6}", fill) else theme.color("surface")

    assert contrast(theme.color(_LABEL_ROLE.get(style, "slot_ink")), ground) >= READABLE


@pytest.mark.parametrize("name", THEMES)
def test_every_role_has_a_look_in_every_theme(name):
    theme = theme_named(name)

    assert theme.colors.keys() == DEFAULT.colors.keys()
    assert theme.fills.keys() == DEFAULT.fills.keys()
    assert theme.marks.keys() == DEFAULT.marks.keys()


def test_what_differs_by_colour_differs_by_shape_or_pattern_too():
    marks = {role: tuple((part["symbol"], part["size"]) for part in parts) for role, parts in DEFAULT.marks.items()}
    watches = [marks[f"watch_{kind}"] for kind in ("internal", "external", "released", "lost")]

    assert len(set(watches)) == 4
    patterns = [str(DEFAULT.fills[style].get("fillpattern")) for style in ("slot", "read_only", "dirty", "invalid")]
    assert len(set(patterns)) == 4


def test_an_unknown_theme_is_the_light_one():
    assert theme_named("sepia").colors == DEFAULT.colors
