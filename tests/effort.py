"""How many random stories the two long hunts draw: as many as fit in a run of all tests, or all of them."""

import os

__all__ = ["stories"]


def stories(most: int) -> int:
    """Return `most` where wrong engines are hunted (`make mutants`, HYPOTHESIS=explore), half of it in `make test`.

    There the stories are the same on every run, so that more of them would tell nothing new.
    """
    return most // 2 if os.environ.get("HYPOTHESIS", "steady") == "steady" else most
