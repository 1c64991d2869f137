"""The pictures of the README, taken of the running page: ``make shots``.

The moving one is an accepted MOVE, step by step; the still one is the MOVE that KVMGT forbids.
"""

from __future__ import annotations

import sys
from io import BytesIO
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "assets/setup"), str(Path(__file__).parent)]

from chromium import FLAGS, find_chromium  # noqa: E402 - after the path is set
from PIL import Image  # noqa: E402
from playwright.sync_api import sync_playwright  # noqa: E402
from screen import Screen, serving  # noqa: E402

IMAGES = ROOT / "assets/images"
SIZE = (1920, 1080)
WIDTH_OF_MOVING = 1280
FIRST_MILLISECONDS, STEP_MILLISECONDS, LAST_MILLISECONDS = 2400, 1400, 3600


def main() -> None:
    """Take every picture."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    path = find_chromium()
    if path is None:
        raise SystemExit("no Chromium was found; `make test` installs one")
    with serving() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        _still(Screen.open(browser, address, SIZE))
        _moving(Screen.open(browser, address, SIZE))
        browser.close()


def _still(screen: Screen) -> None:
    screen.press("k").until_at(12, 0).press("Enter").until_at(13, 7)
    screen.press("2").until_read(".mx-panel-guards", "FIRED")
    _picture(screen).save(IMAGES / "refused.png", optimize=True)


def _moving(screen: Screen) -> None:
    frames = [_picture(screen)]
    screen.press("3").until_at(12, 9)
    for _ in range(9):
        screen.press("Shift+ArrowLeft")
    screen.until_at(12, 0)
    for cell in range(10):
        screen.until_at(12, cell)
        frames.append(_picture(screen))
        screen.press("Shift+ArrowRight")
    times = [FIRST_MILLISECONDS, *[STEP_MILLISECONDS] * 9, LAST_MILLISECONDS]
    height = round(SIZE[1] * WIDTH_OF_MOVING / SIZE[0])
    frames = [frame.resize((WIDTH_OF_MOVING, height), Image.Resampling.LANCZOS) for frame in frames]
    colours = [frame.quantize(method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE) for frame in frames]
    colours[0].save(IMAGES / "move.gif", save_all=True, append_images=colours[1:], duration=times, loop=0)


def _picture(screen: Screen) -> Image.Image:
    return Image.open(BytesIO(screen.page.screenshot())).convert("RGB")


if __name__ == "__main__":
    main()
