"""Pictures of the running page.

``make shots`` takes every state of `states` in every theme, at 1920 x 1080, at 1366 x 768 and in JupyterLab, into
``build/shots``, which git ignores; ``make shots ONLY=refused,kernels`` takes some. ``make shots ONLY=readme`` takes
the two of the README: an accepted MOVE, step by step, and the MOVE that KVMGT forbids.
"""

from __future__ import annotations

import sys
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "assets/setup"), str(Path(__file__).parent)]

from chromium import FLAGS, find_chromium  # noqa: E402 - after the path is set
from lab import lab_in, open_cell  # noqa: E402
from PIL import Image  # noqa: E402
from playwright.sync_api import sync_playwright  # noqa: E402
from screen import Screen, serving  # noqa: E402
from states import SIZES, STATES, THEMES, wear  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Browser

SHOTS = ROOT / "build/shots"
LAB_SIZE = (1600, 1000)
IMAGES = ROOT / "assets/images"
SIZE = (1920, 1080)
WIDTH_OF_MOVING = 1280
FIRST_MILLISECONDS, STEP_MILLISECONDS, LAST_MILLISECONDS = 2400, 1400, 3600


def main(only: str = "") -> None:
    """Take the pictures that are asked for."""
    path = find_chromium()
    if path is None:
        raise SystemExit("no Chromium was found; `make test` installs one")
    names = only.split(",") if only and only != "readme" else list(STATES)
    if unknown := set(names) - set(STATES):
        raise SystemExit(f"no such state: {', '.join(sorted(unknown))}; there are {', '.join(STATES)}, and readme")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        if only == "readme":
            _readme(browser)
        else:
            _states(browser, names)
        browser.close()


def _states(browser: Browser, names: list[str]) -> None:
    """Take states in every theme: on the page, in both sizes, and in a notebook's cell."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    with serving() as address:
        for title, size in SIZES.items():
            _take(names, title, lambda size=size: Screen.open(browser, address, size, color_scheme="light"))
    with TemporaryDirectory() as folder, lab_in(Path(folder)) as lab:
        _take(names, "lab", lambda: _with_keys(open_cell(browser, lab, LAB_SIZE)))
    sys.stdout.write(f"{SHOTS}\n")


def _with_keys(cell: Screen) -> Screen:
    """Put the keyboard into the dashboard, elsewhere its keys are the notebook's; JupyterLab's own offers stay away."""
    cell.page.add_style_tag(content=".Toastify { display: none }")
    cell.page.locator(".tl-node.is-current").focus()
    return cell


def _take(names: list[str], where: str, opened: Callable[[], Screen]) -> None:
    for theme in THEMES:
        for name in names:
            screen = wear(opened(), theme)
            STATES[name](screen)
            screen.until_painted().page.screenshot(path=SHOTS / f"{name}-{theme}-{where}.png")
            screen.close()


def _readme(browser: Browser) -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    with serving() as address:
        _still(Screen.open(browser, address, SIZE))
        _moving(Screen.open(browser, address, SIZE))


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
    main(*sys.argv[1:2])
