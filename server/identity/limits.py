"""Rate limits, shared by all web processes through Redis. While Redis is away they allow all."""

from ipaddress import IPv6Address, ip_address, ip_network

from limits import RateLimitItemPerHour
from limits.aio.storage import RedisStorage
from limits.aio.strategies import FixedWindowRateLimiter
from redis.asyncio import Redis
from redis.exceptions import RedisError

from server.errors import TooMany
from server.logs import log

IPV6_PREFIX = 64
"""The part of an IPv6 address that a network gives to one customer; the rest is free to choose."""


class GuestLimit:
    """How many guest sessions one address may open in an hour."""

    def __init__(self, redis: Redis, *, key_prefix: str, per_hour: int) -> None:
        storage = RedisStorage(
            "async+redis://",  # its client uses the pool, whatever the address
            implementation="redispy",
            key_prefix=f"{key_prefix}limits",
            connection_pool=redis.connection_pool,  # type: ignore[arg-type]  # its stub knows only scalars
        )
        self._limiter = FixedWindowRateLimiter(storage)
        self._item = RateLimitItemPerHour(per_hour)

    async def take(self, address: str) -> None:
        """Counts one session of this address; raises TooMany."""
        try:
            allowed = await self._limiter.hit(self._item, "guest", network_of(address))
        except (RedisError, OSError, TimeoutError) as error:
            log.warning("limit_check_failed", reason=str(error))
            return
        if not allowed:
            limit = self._item.amount
            detail = f"One address may open at most {limit} guest sessions per hour."
            raise TooMany("too_many_guest_sessions", detail, limit=limit, retry_after_s=3600)


def network_of(address: str) -> str:
    """What a limit counts an address as: an IPv6 address as its /64, others as themselves."""
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return str(ip_network((ip, IPV6_PREFIX), strict=False))
    return str(ip)
