"""The model of KVM's memslots and x86 page tracking. Pure Python; imports nothing of the rest.

Read in this order: `types`, `uapi`, `profile`, `config`, `state`, `capabilities`, `commands`, `events`,
`draft`, `lookup`, `guest_memfd`, `region_call`, `guards`, `swap`, `memslots`, `metadata`, `spte`, `page_track`,
`gtt`, `kvmgt`, `trackers`, `mmu`, `hostmem`, `dirty_log`, `fault`, `shadow`, `guest`, `vcpu`, `apply`,
`slot_properties`, `tracking_properties`, `step_properties`, `invariants`.
"""
