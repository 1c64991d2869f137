"""The same operations on the machine's own KVM: a bare VM, no guest code, and each answer beside the model's.

Reading order: `ioctls` (which call a command is), `bare` (what of a run can be done without a guest), `device` and
`child` (who does it), `compare`, `facts` and `host` (which profile fits the kernel that runs).
"""

from explorer.live.bare import BareOp, Limits, bare
from explorer.live.compare import LiveReport, LiveRow, perform, perform_all
from explorer.live.device import Device, DeviceError
from explorer.live.host import HostKernel, look_at_host

__all__ = [
    "BareOp",
    "Device",
    "DeviceError",
    "HostKernel",
    "Limits",
    "LiveReport",
    "LiveRow",
    "bare",
    "look_at_host",
    "perform",
    "perform_all",
]
