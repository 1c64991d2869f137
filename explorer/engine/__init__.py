"""The model of KVM's memslots and x86 page tracking. Pure Python; imports nothing of the rest.

Read in this order; every file ends its first lines with what to read next:

- words: `types`, `uapi`, `profile`, `config`
- the machine: `slot_state`, `tracker_state`, `paging_state`, `state`, `capabilities`
- what is asked of it, what is seen of it, what it is edited in, what it waits for: `commands`, `events`, `draft`,
  `locks`
- finding a slot: `lookup`, `guest_memfd`
- a region call: `region_call`, `guard`, `guards`, `gmem_guards`, `swap`, `memslots`, `metadata`
- page tracking: `spte`, `page_track`, `gtt`, `kvmgt`, `trackers`, `mmu`
- the guest at work: `hostmem`, `dirty_log`, `fault`, `shadow`, `tdp_walk`, `lapic`, `guest`
- the rest of a VM, and the only door: `vcpu`, `apply`, `brief`
- what holds at every moment: `slot_properties`, `tracking_properties`, `step_properties`, `invariants`

Citations name the files of the newest tree: before v5.5 those of arch/x86/kvm/mmu/, and before v5.0 those of
arch/x86/kvm/vmx/, were in arch/x86/kvm/. Beside them stand the containers that keep all of it: sortedmap.py and
runset.py.
"""
