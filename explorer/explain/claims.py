"""What was said in the thread and in the patch, in our own words: what each claim rests on, and where to see it.

Rule 1: a claim that the model can show opens the state that shows it, and a test asserts the fact there.
Rule 2: what is experience or opinion is listed as that, and nothing here pretends to prove it.

The mails are linked, never quoted. Their order is that of the argument.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from explorer.explain.basis import Basis

__all__ = ["CLAIMS", "Claim", "Kind", "Shown", "claim_named"]

Kind = Literal["proved", "conditional", "opinion"]


class Shown(NamedTuple):
    """The state that shows a claim."""

    story: str
    """Scenario of the library; its composed operation is applied."""
    at: str
    """Place in it, as the timeline numbers it."""
    profile: str = ""
    """Kernel to tell it on instead of its own."""
    do: str = ""
    """Operation to apply instead of the one that is composed."""


class Claim(NamedTuple):
    """One claim of a message."""

    name: str
    who: str
    """Author and date."""
    message: str
    """Message id; `url` makes an address of it."""
    words: str
    """What is claimed, in our words."""
    kind: Kind
    basis: Basis
    """For an opinion: the function it is about."""
    rests_on: str = ""
    """For a conditional claim its condition; for an opinion why it cannot be shown here."""
    shown: Shown | None = None

    @property
    def url(self) -> str:
        """Address of the message in the public archive."""
        return "https://lore.kernel.org/r/" + self.message.replace("+", "%2B")


_PATCH = ("Sean Christopherson, 11 Mar 2023, the patch", "20230311002258.852397-15-seanjc@google.com")
_QUESTION = ("Yan Zhao, 15 Mar 2023, the question", "ZBF72+flVlEbfg70@yzhao56-desk.sh.intel.com")
_ANSWER = ("Sean Christopherson, 15 Mar 2023, the answer", "ZBHnugUe0SSmQKGI@google.com")
_PREPARE = "kvm_arch_prepare_memory_region"

CLAIMS: tuple[Claim, ...] = (
    Claim(
        "speculative-flush",
        "Sean Christopherson, 10 Nov 2022, the forerunner",
        "20221110014821.1548347-1-seanjc@google.com",
        "KVM calls track_flush_slot before it knows whether the update will succeed, so a tracker may drop its watches for nothing.",
        "proved",
        Basis("kvm_page_track_flush_slot", gone="v6.6"),
        shown=Shown(
            "before-the-patch", "17.8", do="set_region slot=10 gpa=0x10000000000000 size=0x20000 hva=0x100000000000"
        ),
    ),
    Claim(
        "kvmgt-does-not-follow",
        *_PATCH,
        "KVMGT does not follow a slot that moves: afterwards it is not told of guest writes it still counts on.",
        "proved",
        Basis("kvmgt_page_track_flush_slot", gone="v6.6"),
        shown=Shown("before-the-patch", "17.10"),
    ),
    Claim(
        "refused-while-attached",
        *_PATCH,
        "Therefore a MOVE has to fail with EINVAL while an external tracker is attached.",
        "proved",
        Basis(_PREPARE, since="v6.6"),
        shown=Shown("rejected-is-not-free", "17.8"),
    ),
    Claim(
        "abi-caveat",
        *_PATCH,
        "That may break userspace: it could move a slot that KVMGT does not watch, and the guest took no harm.",
        "proved",
        Basis(_PREPARE, since="v6.6"),
        shown=Shown("abi-worry", "14.8"),
    ),
    Claim(
        "qemu-does-not-move",
        *_PATCH,
        "QEMU is the only known VMM that uses KVMGT, and it does not move slots of ordinary RAM.",
        "opinion",
        Basis("kvm_vm_ioctl_set_memory_region"),
        rests_on="About programs, not about KVM: not modelled. A log of your own VMM can be pasted and replayed.",
    ),
    Claim(
        "move-was-broken",
        *_PATCH,
        "KVM’s own MOVE was wrong for years in an edge case: a moved slot kept arrays made for its old place.",
        "proved",
        Basis("kvm_alloc_memslot_metadata", gone="v5.7"),
        shown=Shown(
            "first-look",
            "13.10",
            profile="pre_edd4",
            do="set_region slot=10 gpa=0xd01f0000 size=0x20000 hva=0x100000000000",
        ),
    ),
    Claim(
        "new-array-is-empty",
        *_QUESTION,
        "In a MOVE the metadata of the new slot is zeroed and allocated anew, so its write-track array starts empty.",
        "proved",
        Basis("kvm_alloc_memslot_metadata", since="v5.7"),
        shown=Shown("inside-the-move", "13.6"),
    ),
    Claim(
        "old-array-is-freed",
        *_QUESTION,
        "The old slot’s write-track array is freed in the commit, after the new slot is in place.",
        "proved",
        Basis("kvm_arch_commit_memory_region", since="v5.7"),
        shown=Shown("inside-the-move", "13.9"),
    ),
    Claim(
        "not-tracked-any-more",
        *_QUESTION,
        "So after a MOVE the pages are not write-tracked at their new place, though they were at the old one.",
        "proved",
        Basis("kvm_alloc_memslot_metadata", since="v5.7"),
        shown=Shown("inside-the-move", "13.10"),
    ),
    Claim(
        "works-because-of-the-zap",
        *_ANSWER,
        "Without external trackers it works, because KVM zaps every SPTE when a slot moves.",
        "conditional",
        Basis("kvm_arch_flush_shadow_memslot"),
        rests_on="The zap takes the shadow pages of the slot before its arrays change. From 6.12 userspace can limit the zap; as first queued, that left them (beat 8).",
        shown=Shown("why-nobody-noticed", "13.5"),
    ),
    Claim(
        "loss-is-benign",
        *_ANSWER,
        "That the write-tracking counts are lost is harmless.",
        "conditional",
        Basis("kvm_arch_flush_shadow_memslot"),
        rests_on="Only shadow paging tracks: the zap has then given every count back, so nothing is lost. The watches of an external tracker are.",
        shown=Shown("first-look", "13.10"),
    ),
    Claim(
        "no-vmm-does",
        *_ANSWER,
        "Probably no VMM moves slots while it uses shadow paging.",
        "opinion",
        Basis("kvm_vm_ioctl_set_memory_region"),
        rests_on="A guess about programs, marked as one by its author: not modelled.",
    ),
    Claim(
        "cheap-to-keep",
        *_ANSWER,
        "Keeping MOVE costs little by now; taking it out is not worth the risk for userspace.",
        "opinion",
        Basis("kvm_move_memslot", since="v5.17"),
        rests_on="A judgement about maintenance: not modelled.",
    ),
    Claim(
        "wish",
        *_ANSWER,
        "Looking back, it would have been better to disallow MOVE than to fix its bugs one by one.",
        "opinion",
        Basis("kvm_move_memslot", since="v5.17"),
        rests_on="A regret: not modelled.",
    ),
    Claim(
        "selftests-break",
        "Like Xu, 31 Aug 2023, after the merge request",
        "7a6488f2-fef4-6709-6a95-168b0c034ff4@gmail.com",
        "The test for an external tracker is the wrong way round: it refuses the MOVE of a VM that has none.",
        "proved",
        Basis("kvm_page_track_has_external_user", since="v6.6"),
        shown=Shown("inverted-check", "13.8"),
    ),
    Claim(
        "it-should-not",
        "Sean Christopherson, 30 Aug 2023",
        "ZO+roobNH2QbZZWn@google.com",
        "The patch should not break a selftest, as only KVMGT registers a tracker.",
        "conditional",
        Basis("kvm_page_track_has_external_user", since="v6.6"),
        rests_on="The test is the right way round, as it was merged; or KVM was built without external write tracking, as in the configurations that had been tested.",
        shown=Shown("inverted-check", "13.10", profile="v6_6"),
    ),
)
"""In the order of the argument."""


def claim_named(name: str) -> Claim | None:
    """Return the claim of a name; None if there is none."""
    return next((claim for claim in CLAIMS if claim.name == name), None)
