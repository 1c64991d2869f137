"""What a careful eye would find wrong on a page: words that are cut off, words that lie on words, words too small."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from screen import Screen

__all__ = ["SMALLEST", "Faults", "faults_of"]

SMALLEST = 12
"""Pixels of the smallest type: sizes over the line of all memory, words in the boxes of the strip."""

_WORDS = """() => {
  const MIDDLE = 0.25; // of a line's height: lines that stand close together are no overlap
  const frame = document.querySelector('.mx-frame');
  const cut = (box, by) => ({ left: Math.max(box.left, by.left), right: Math.min(box.right, by.right),
    top: Math.max(box.top, by.top), bottom: Math.min(box.bottom, by.bottom) });
  const words = [];
  const walker = document.createTreeWalker(frame, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const text = node.textContent.trim();
    const parent = node.parentElement;
    if (!text || !parent.checkVisibility({ visibilityProperty: true, opacityProperty: true })) continue;
    if (parent.closest('.only-read, .sr, .mx-live, option, style, script')) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    const told = parent.closest('[title], [aria-label]');
    for (const whole of range.getClientRects()) {
      if (whole.width < 1) continue;
      let seen = whole;
      let clipped = '';
      for (let e = parent; e && e !== frame.parentElement; e = e.parentElement) {
        const style = getComputedStyle(e);
        if (style.clipPath !== 'none') { seen = cut(seen, { left: 0, right: 0, top: 0, bottom: 0 }); break; }
        if (style.display === 'inline' || style.display === 'contents') continue;
        const [x, y] = [style.overflowX, style.overflowY];
        if (x === 'visible' && y === 'visible') continue;
        const by = e.getBoundingClientRect();
        const short = style.textOverflow === 'ellipsis' && told;
        const sideways = seen.right > by.right + 1.5 || seen.left < by.left - 1.5;
        // What lies beyond the edge of a part that scrolls is reached; what lies half beyond a fixed edge is cut.
        const high = seen.bottom - seen.top;
        const across = Math.max(seen.bottom - by.bottom, by.top - seen.top);
        if (x !== 'visible' && sideways && !short) clipped ||= `${e.className || e.tagName}: sideways`;
        if (y === 'hidden' && across > high * MIDDLE && seen.bottom > by.top && seen.top < by.bottom)
          clipped ||= `${e.className || e.tagName}: from above or below`;
        seen = cut(seen, by);
      }
      const high = whole.bottom - whole.top;
      const scale = (parent.getScreenCTM?.()?.d ?? parent.currentCSSZoom ?? 1);
      words.push({ node, text, clipped, cls: parent.getAttribute('class') || parent.tagName,
        size: parseFloat(getComputedStyle(parent).fontSize) * scale,
        left: seen.left, right: seen.right, top: seen.top + high * MIDDLE, bottom: seen.bottom - high * MIDDLE });
    }
  }
  const open = words.filter((word) => word.right - word.left > 1 && word.bottom > word.top);
  const on = [];
  for (let i = 0; i < open.length; i += 1) for (let j = i + 1; j < open.length; j += 1) {
    const [a, b] = [open[i], open[j]];
    if (a.node === b.node) continue; // lines of one paragraph; words before and behind their own ellipsis
    if (a.left < b.right - 1.5 && b.left < a.right - 1.5 && a.top < b.bottom && b.top < a.bottom)
      on.push(`${a.text} × ${b.text}`);
  }
  const page = document.scrollingElement;
  return {
    clipped: open.filter((word) => word.clipped).map((word) => `${word.text} (${word.clipped})`),
    overlapping: on,
    sizes: open.map((word) => [word.size, word.text, word.cls]),
    sideways: page.scrollWidth - page.clientWidth + frame.scrollWidth - frame.clientWidth,
  };
}"""


class Faults(NamedTuple):
    """What is wrong on a page; nothing, if every part is empty."""

    clipped: list[str]
    """Words that an edge cuts, unless a pointer or a screen reader gets them whole."""
    overlapping: list[str]
    """Words that lie on other words."""
    small: list[str]
    """Words in too small a type."""
    sideways: int
    """Pixels that the page would scroll sideways."""

    def __bool__(self) -> bool:
        return any(self)


def faults_of(screen: Screen, smallest: float = SMALLEST) -> Faults:
    """Measure every word that can be seen."""
    found = screen.page.evaluate(_WORDS)
    small = [f"{text} ({size:.1f} px, {cls})" for size, text, cls in found["sizes"] if size < smallest - 0.05]
    return Faults(found["clipped"], found["overlapping"], small, found["sideways"])
