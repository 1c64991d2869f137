"""The model of KVM's memslots and x86 page tracking. Pure Python; imports nothing of the rest.

Read in this order; every file ends its first lines with what to read next:

- words: `types`, `uapi`, `profile`, `config`
- the machine, what is asked of it and what is seen of it: `state`, `capabilities`, `commands`,
  `events`, `draft`
- finding a slot: `lookup`, `guest_memfd`
- a region call: `region_call`, `guard`, `guards`, `gmem_guards`, `swap`, `memslots`, `metadata`
- page tracking: `spte`, `page_track`, `gtt`, `kvmgt`, `trackers`, `mmu`
- the guest at work: `hostmem`, `dirty_log`, `fault`, `shadow`, `guest`
- the rest of a VM, and the only door: `vcpu`, `apply`
- what holds at every moment: `slot_properties`, `tracking_properties`, `step_properties`, `invariants`
"""
