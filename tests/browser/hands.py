"""Somebody who asks the page a question, and how much that person has to do for the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Locator
    from screen import Screen

__all__ = ["Hands"]


class Hands:
    """Hands on a page that count what they do.

    A key, a click, a paste, a choice from a list and a value typed into a field are one action each. What is waited
    for and what is read counts nothing. A question starts where the screen is.
    """

    def __init__(self, screen: Screen) -> None:
        self.screen = screen
        self.actions = 0

    def press(self, key: str) -> Screen:
        """Press one key."""
        self.actions += 1
        return self.screen.press(key)

    def click(self, target: Locator) -> Screen:
        """Click once."""
        self.actions += 1
        target.click()
        return self.screen

    def choose(self, control: str, label: str) -> Screen:
        """Choose from a drop-down, such as a chip."""
        self.actions += 1
        return self.screen.choose(control, label)

    def fill(self, field: str, text: str) -> Screen:
        """Type a value into a field of the composed operation."""
        self.actions += 1
        return self.screen.fill(field, text)

    def type(self, text: str) -> Screen:
        """Type into the field that has the focus."""
        self.actions += 1
        self.screen.page.keyboard.type(text)
        return self.screen

    def paste(self, text: str) -> Screen:
        """Paste what was copied elsewhere; nothing was clicked before."""
        page = self.screen.page
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.evaluate("text => navigator.clipboard.writeText(text)", text)
        self.actions += 1
        page.keyboard.press("Control+v")
        return self.screen
