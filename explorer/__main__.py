"""``python -m explorer`` is the same as ``explorer``."""

from explorer.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
