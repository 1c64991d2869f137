"""Which kernels the server ends as idle: those of visitors, counted from when the visitor came.

A kernel that waits in Voila's pool is never ended, but its idle time runs. Given to a visitor after a quiet hour it
would be ended while the page still loads.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager

__all__ = ["VisitorKernelManager"]


class VisitorKernelManager(AsyncMappingKernelManager):
    """Jupyter's, with an idle time that starts when a kernel has left the pool."""

    def __init__(self, **kwargs: Any) -> None:
        """Start with no visitor."""
        super().__init__(**kwargs)  # type: ignore[no-untyped-call, unused-ignore]
        self._visited: set[str] = set()

    async def cull_kernel_if_idle(self, kernel_id: str) -> None:
        """End a kernel that nobody uses; Voila asks only for those that are not in its pool."""
        self._visited &= set(self.list_kernel_ids())
        if kernel_id not in self._visited:
            self._visited.add(kernel_id)
            self.get_kernel(kernel_id).last_activity = datetime.now(UTC)  # type: ignore[attr-defined, unused-ignore]
        await super().cull_kernel_if_idle(kernel_id)  # type: ignore[no-untyped-call, unused-ignore]
