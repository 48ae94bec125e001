"""A stand-in for a worker's heartbeat, for tests of its log writer."""

from time import monotonic


class SteadyHeartbeat:
    """A heartbeat whose beats are written at once."""

    lease_s, term = 60.0, 0

    def __init__(self) -> None:
        self.beaten_at = monotonic()

    async def beat_now(self) -> None:
        self.beaten_at = monotonic()
