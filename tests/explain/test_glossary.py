"""The glossary, and product row 55: no statement about the kernel without a function and a range of kernels."""

import re

import pytest
from runs import ALL_PROFILES, KVMGT, MOVE, end_of, run_of

from explorer.engine.profile import PROFILES, get_profile
from explorer.explain.basis import Basis
from explorer.explain.claims import CLAIMS
from explorer.explain.glossary import GLOSSARY, pattern_for, term_of
from explorer.explain.sources import FUNCTIONS, source_of
from explorer.figures.dom import to_html, to_text
from explorer.figures.rail import rail_panel
from explorer.figures.terms import glossary_panel, with_terms
from explorer.selectors.rail import select_rail

STATEMENTS = [*GLOSSARY, *CLAIMS]
WANTED = ("gfn", "gpa", "hva", "pfn", "memslot", "SPTE", "rmap", "shadow paging", "TDP", "quirk", "KVMGT")
"""Product row 54, and what the screen says most."""


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda statement: statement.name)
def test_every_statement_names_a_function_and_kernels_that_have_it(statement):
    basis = statement.basis
    there = [profile for profile in PROFILES.values() if basis.holds(profile)]

    assert basis.function in FUNCTIONS
    assert there != []
    assert [profile.name for profile in there if source_of(basis.function, profile) is None] == []
    assert re.search(r"\d+\.\d+", basis.range_text)


@pytest.mark.parametrize("term", GLOSSARY, ids=lambda term: term.name)
def test_a_word_is_explained_in_one_or_two_sentences(term):
    assert term.meaning[0].isupper()
    assert term.meaning.endswith(".")
    assert len(re.findall(r"[.:] ?", term.meaning)) <= 4
    assert len(term.meaning) <= 170


def test_the_words_are_in_order_and_each_is_there_once():
    names = [term.name for term in GLOSSARY if not term.name.startswith("KVM_")]

    assert [word for word in WANTED if word not in names] == []
    assert names == sorted(names, key=str.lower)
    assert len({term.key for term in GLOSSARY}) == len(GLOSSARY)
    spellings = [spelling for term in GLOSSARY for spelling in term.spellings]
    assert len(spellings) == len(set(spellings))


def test_a_range_of_kernels_is_told_by_release():
    assert Basis("kvm_vm_ioctl").range_text == "4.19 to 7.3"
    assert Basis("kvm_gmem_create", since="v6.8").range_text == "6.8 to 7.3"
    assert Basis("kvm_page_track_flush_slot", gone="v6.6").range_text == "before 6.6"


@pytest.mark.parametrize("profile", ALL_PROFILES)
def test_a_word_that_a_kernel_does_not_have_is_not_marked_there(profile):
    kernel = get_profile(profile)
    _, marked = pattern_for(kernel)

    assert set(marked.values()) == {term.key for term in GLOSSARY if term.basis.holds(kernel)}
    assert ("quirk" in marked.values()) == (profile not in ("pre_edd4", "v5_10"))
    told = to_text(glossary_panel(kernel))
    assert ("not in 5.10: 6.8 to 7.3" in told) == (profile == "v5_10")


@pytest.mark.parametrize("profile", ALL_PROFILES)
def test_marking_changes_no_word_and_marks_each_once(profile):
    run = run_of(profile, *KVMGT, MOVE)
    plain = rail_panel(select_rail(run, end_of(run)))
    before = to_html(plain)

    marked = with_terms(plain, get_profile(profile))

    keys = re.findall(r'data-term="([^"]+)"', to_html(marked))
    assert len(keys) == len(set(keys)) >= 4
    assert re.sub(r"<button[^>]*class=\"gloss\"[^>]*>(.*?)</button>", r"\1", to_html(marked)) == before
    assert to_html(plain) == before  # a tree is never changed once it is made
    assert all(term_of(key).basis.holds(get_profile(profile)) for key in keys)


def test_text_from_outside_stays_text():
    hostile = ["p", {}, '<img src=x onerror=alert(1)> gfn & "zap"']

    html = to_html(with_terms(hostile, get_profile("v6_12")))

    assert "<img" not in html
    assert html.startswith("<p>&lt;img src=x onerror=alert(1)&gt; <button")
    assert html.count('data-term="') == 2
