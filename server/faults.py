"""Named points at which a test can kill or pause this process. Otherwise they do nothing."""

from collections.abc import Callable

_hook: Callable[[str], None] | None = None


def reach(point: str) -> None:
    """Calls the hook that a test registered, if any, with the name of the point."""
    if _hook is not None:
        _hook(point)


def register(hook: Callable[[str], None] | None) -> None:
    """Sets the hook that is called at every point; None removes it."""
    global _hook  # noqa: PLW0603  one per process
    _hook = hook
