"""Memslot Explorer: see what a KVM memory slot change does."""

__version__ = "0.1.0"
