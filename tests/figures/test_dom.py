"""Document trees: only known tags, and text from outside is text. Judge: the list in the page's own dom.js."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from explorer.figures import dom
from explorer.figures.dom import ATTRIBUTES, TAGS, el, glyph, rich, to_html

(SCRIPT,) = (path.read_text(encoding="utf-8") for path in Path(dom.__file__).parents[1].rglob("dom.js"))


def list_in_stage(name):
    found = re.search(rf"const {name} = new Set\(\s*\((.*?)\)\.split", SCRIPT, re.DOTALL)
    assert found is not None, f"dom.js has no list {name}"
    return set("".join(re.findall(r'"([^"]*)"', found[1])).split())


def test_python_and_the_page_know_the_same_tags_and_attributes():
    assert list_in_stage("TAGS") == TAGS
    # `vars` becomes CSS variables; the page treats it apart.
    assert list_in_stage("ATTRIBUTES") | {"vars"} == ATTRIBUTES


def test_no_tag_or_attribute_can_run_a_script():
    assert not TAGS & {"script", "style", "iframe", "object", "embed", "img", "input", "form", "link", "meta"}
    assert not [name for name in ATTRIBUTES if name.startswith("on")]
    assert not ATTRIBUTES & {"style", "src", "srcdoc", "action", "formaction", "xlink:href"}


@pytest.mark.parametrize("tag", ["script", "img", "style", "DIV", "", "a onclick"])
def test_an_unknown_tag_is_refused(tag):
    with pytest.raises(ValueError, match="is no tag"):
        el(tag)


@pytest.mark.parametrize("name", ["onclick", "style", "src", "on_click", "formaction"])
def test_an_unknown_attribute_is_refused(name):
    with pytest.raises(ValueError, match="is no attribute"):
        el("a", **{name: "x"})


class Reader(HTMLParser):
    """Collects what a browser would see: the tags, and the text in between."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.tags, self.values, self.text = [], [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.values += [value for _, value in attrs]

    def handle_data(self, data):
        self.text += data


def read(html):
    reader = Reader()
    reader.feed(html)
    reader.close()
    return reader


NASTY = st.one_of(
    st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])),
    st.sampled_from(
        ["<script>alert(1)</script>", "</td><td>", '" onclick="x', "<b>bold</b>", "&lt;&amp;", "<!--", "]]>"]
    ),
)


@given(NASTY, NASTY)
def test_whatever_a_text_holds_it_stays_text(text, title):
    page = read(to_html(el("p", text, title=title)))

    assert (page.tags, page.text, page.values) == (["p"], text, [title])


@given(NASTY)
def test_a_rich_sentence_has_no_tags_but_code_and_bold(text):
    nodes = rich(text)

    page = read(to_html(el("p", *nodes)))
    assert set(page.tags) <= {"p", "code", "b"}
    marks = text.replace("`", "").replace("**", "")
    assert page.text.replace("`", "").replace("**", "") == marks


def test_backquotes_and_stars_are_drawn():
    assert rich("see `kvm_set_memslot()`, **always**.") == [
        "see ",
        ["code", {}, "kvm_set_memslot()"],
        ", ",
        ["b", {}, "always"],
        ".",
    ]


def test_a_glyph_is_named_or_decoration():
    assert glyph("lost", "a lost watch")[1]["aria-label"] == "a lost watch"
    assert glyph("lost")[1]["aria-hidden"] == "true"
