"""Rate limits, shared by all web processes through Redis; while Redis is away they let everybody through."""

from limits import RateLimitItemPerHour
from limits.aio.storage import RedisStorage
from limits.aio.strategies import FixedWindowRateLimiter
from redis.asyncio import Redis
from redis.exceptions import RedisError

from server.errors import TooMany
from server.logs import log


class GuestLimit:
    """How many guest sessions one address may open in an hour."""

    def __init__(self, redis: Redis, url: str, *, key_prefix: str, per_hour: int) -> None:
        uri = f"async+redis+{url}" if url.startswith("unix") else f"async+{url}"
        storage = RedisStorage(
            uri,
            implementation="redispy",
            key_prefix=f"{key_prefix}limits",
            connection_pool=redis.connection_pool,  # type: ignore[arg-type]  # its stub knows only scalars
        )
        self._limiter = FixedWindowRateLimiter(storage)
        self._item = RateLimitItemPerHour(per_hour)

    async def take(self, address: str) -> None:
        """Counts one session of this address; raises TooMany."""
        try:
            allowed = await self._limiter.hit(self._item, "guest", address)
        except (RedisError, OSError, TimeoutError) as error:
            log.warning("limit_not_checked", reason=str(error))
            return
        if not allowed:
            detail = f"At most {self._item.amount} guest sessions per hour may be opened from one address."
            raise TooMany(
                "too_many_guest_sessions", detail, limit=self._item.amount, retry_after_s=3600
            )
