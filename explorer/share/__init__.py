"""A run as a text for other people: log, letter, script, test, program.

Reading order: `text` (the formats and what they share), `strace`, `mail`, `script`, `ioctl_c` (what both C texts have
in common), `reproducer`, `selftest`.
"""

from explorer.share.text import FORMATS, Format, Told, export

__all__ = ["FORMATS", "Format", "Told", "export"]
