"""Which descriptor of which process is which VM.

A descriptor number means nothing by itself: it is used again after close, a copy of it is another name of the
same VM, a forked child has a table of its own, a thread shares one. So the importer follows the calls that
change descriptor tables, as far as the log shows them, and states what it takes for granted where it does not:

- A thread that was never seen to start belongs to the process that made a VM last.
- A descriptor that was never seen to come into being is another name of the VM if the process has made just
  one; else it is a VM from before the log.
- KVM_CREATE_VM never returns a descriptor that is in use: the old one was closed unseen, or, if another
  thread made the old one, this thread belongs to another process.

Models fs/file.c as far as it goes for whole tables, and CLONE_FILES of kernel/fork.c.
Not modelled: descriptors sent over sockets, unshare(CLONE_FILES), FD_CLOEXEC set later. Read next: `strace`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from explorer.trace.records import Vm

__all__ = ["Descriptors", "Pid"]

Pid = int | None
"""A thread as the log names it; None where it names none."""

_MOST_VMS = 4096
_MOST_THREADS = 1 << 16
_MOST_NOTES = 5
_ONE_THREAD = "the log shows one thread only; calls of other threads are missing"


@dataclass(slots=True, eq=False)
class _Table:
    """Descriptors of one process."""

    fds: dict[int, Vm | None] = field(default_factory=dict)
    """None for a descriptor that is known to be no VM: /dev/kvm itself."""
    kept_by_exec: set[int] = field(default_factory=set)


class Descriptors:
    """The descriptor tables of every process in a log."""

    def __init__(self, *, one_thread: bool) -> None:
        """Start with one process; `one_thread` says that the log shows but one of several threads."""
        self.vms: list[Vm] = []
        self.ended: list[Vm] = []
        """VMs whose last descriptor was closed; whoever reads the list takes them out."""
        self.notes: list[str] = []
        """Sentences on what was taken for granted."""
        self._one_thread = one_thread
        self._newest = _Table()
        self._of: dict[Pid, _Table] = {}
        self._makers: dict[Vm, Pid] = {}
        self._forking: dict[Pid, bool] = {}
        self._forks_seen = False

    # -- reading -----------------------------------------------------------------------------------

    def vm_of(self, pid: Pid, fd: int) -> Vm | None:
        """Return the VM behind a descriptor on which a region call was made; None if it is no VM."""
        fds = self._table(pid).fds
        if fd in fds:
            return fds[fd]
        own = {vm for vm in fds.values() if vm is not None}
        origin_known = bool(own) and all(vm.born is not None for vm in own)
        if origin_known and len(own) == 1:
            (vm,) = own
            self._name(self._table(pid), fd, vm)
            if len(self.notes) < _MOST_NOTES:
                self.notes.append(
                    f"Descriptor {fd} is taken for another name of VM {vm.index}; the log does not show its origin."
                )
            return vm
        found = self._new_vm(pid, fd, None)
        if found is None:
            return None
        if origin_known:
            for vm in (*own, found):
                vm.doubt = f"the log does not show where descriptor {fd} is from, and it may be another name of the VM"
        elif pid is None and found.doubt is None:
            found.doubt = "the log shows one thread only, and not where the VM was made"
        return found

    def knows(self, pid: Pid) -> bool:
        """Return whether this thread was seen before."""
        return pid in self._of

    # -- descriptors come and go -------------------------------------------------------------------

    def made(self, pid: Pid, device: int, fd: int, line: int) -> Vm | None:
        """Note that KVM_CREATE_VM on `device` returned `fd`; return the new VM, or None if there are too many."""
        table = self._table(pid)
        old = table.fds.get(fd)
        if old is not None:
            if self._makers.get(old) == pid:
                self._drop(table, fd, line)
            else:
                table = self._of[pid] = _Table()
        self._drop(table, device, line)
        table.fds[device] = None
        self._newest = table
        return self._new_vm(pid, fd, line)

    def closed(self, pid: Pid, first: int, last: int, line: int) -> bool:
        """Note that descriptors `first` to `last` were closed; return whether that was news."""
        table = self._table(pid)
        known = [fd for fd in table.fds if first <= fd <= last]
        for fd in known:
            self._drop(table, fd, line)
        return bool(known)

    def copied(self, pid: Pid, old: int, new: int, line: int, *, kept_by_exec: bool) -> bool:
        """Note that `new` became a copy of `old`; return whether that was news."""
        table = self._table(pid)
        news = old in table.fds or new in table.fds
        if old == new or not news:
            return news
        self._drop(table, new, line)
        if old in table.fds:
            self._name(table, new, table.fds[old])
            if kept_by_exec:
                table.kept_by_exec.add(new)
        return True

    # -- processes come and go ---------------------------------------------------------------------

    def forking(self, pid: Pid, *, shares: bool) -> None:
        """Note that a thread has called fork, vfork or clone, which has not returned yet."""
        self._table(pid)
        self._forking[pid] = shares
        self._forks_seen = True

    def forked(self, pid: Pid, child: int | None, *, shares: bool) -> None:
        """Note that this call returned `child`, or None if it failed; the child may have been seen before."""
        parent = self._table(pid)
        self._forking.pop(pid, None)
        self._forks_seen = True
        if child is not None and child not in self._of:
            self._join(child, parent if shares else self._copy(parent))

    def replaced(self, pid: Pid, line: int) -> bool:
        """Close what a thread that starts another program does not hand on; return whether that was news."""
        table = self._table(pid)
        gone = [fd for fd in table.fds if fd not in table.kept_by_exec]
        for fd in gone:
            self._drop(table, fd, line)
        return bool(gone)

    def exited(self, pid: Pid) -> None:
        """Note that a thread has ended: its number is free, but what it shared may still have other owners."""
        self._of.pop(pid, None)
        self._forking.pop(pid, None)
        if pid is None:  # the only one: what follows is the log of another run
            self._newest = _Table()

    def rename(self, old: Pid, new: Pid) -> None:
        """Give the thread that was `old` until now the number `new`."""
        table = self._of.pop(old, None)
        if table is not None:
            self._of[new] = table
            self._makers = {vm: new if maker == old else maker for vm, maker in self._makers.items()}
        if old in self._forking:
            self._forking[new] = self._forking.pop(old)

    # -- helpers -----------------------------------------------------------------------------------

    def _table(self, pid: Pid) -> _Table:
        table = self._of.get(pid)
        if table is not None:
            return table
        for parent, shares in self._forking.items():
            if parent in self._of:  # a child may be seen before the call that made it returns
                return self._join(pid, self._of[parent] if shares else self._copy(self._of[parent]))
        # Where children are announced, whoever is not announced is the one that had no number.
        return self._join(pid, self._of.get(None, self._newest) if self._forks_seen else self._newest)

    def _join(self, pid: Pid, table: _Table) -> _Table:
        if len(self._of) >= _MOST_THREADS:
            del self._of[next(iter(self._of))]
        self._of[pid] = table
        return table

    def _copy(self, table: _Table) -> _Table:
        copy = _Table(kept_by_exec=set(table.kept_by_exec))
        for fd, vm in table.fds.items():
            self._name(copy, fd, vm)
        return copy

    def _new_vm(self, pid: Pid, fd: int, line: int | None) -> Vm | None:
        if len(self.vms) >= _MOST_VMS:
            return None
        vm = Vm(
            index=len(self.vms),
            born=line,
            doubt=_ONE_THREAD if self._one_thread and pid is None else None,
        )
        self.vms.append(vm)
        self._makers[vm] = pid
        self._name(self._table(pid), fd, vm)
        return vm

    def _name(self, table: _Table, fd: int, vm: Vm | None) -> None:
        table.fds[fd] = vm
        if vm is not None:
            vm.names += 1

    def _drop(self, table: _Table, fd: int, line: int) -> None:
        vm = table.fds.pop(fd, None)
        table.kept_by_exec.discard(fd)
        if vm is not None:
            vm.names -= 1
            if vm.names == 0:
                vm.ended = line
                self.ended.append(vm)
