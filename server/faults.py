"""Named points at which a test may end or hold this process; without a test, nothing happens there."""

from collections.abc import Callable

_hook: Callable[[str], None] | None = None


def reach(point: str) -> None:
    """Calls the hook that a test registered, if any, with the name of the point."""
    if _hook is not None:
        _hook(point)


def register(hook: Callable[[str], None] | None) -> None:
    """Has `hook` called at every point from now on; None: no longer."""
    global _hook  # noqa: PLW0603  one per process
    _hook = hook
