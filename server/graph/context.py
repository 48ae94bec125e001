"""The context of an operation: its caller and the services of the process."""

from dataclasses import dataclass, replace

import strawberry
from starlette.requests import HTTPConnection

from server.errors import Unauthenticated
from server.graph.loaders import Loaders
from server.graph.search_budget import SearchBudget
from server.identity.callers import Caller, Callers
from server.identity.credentials import caller_by, caller_of
from server.identity.presence import Presence
from server.resources import Services


@dataclass
class Context:
    """The context of resolvers. A WebSocket has one for the whole connection."""

    services: Services
    presence: Presence
    callers: Callers
    request_id: str
    signed_in: Caller | None
    _loaders: Loaders | None = None
    _search_budget: SearchBudget | None = None

    @property
    def caller(self) -> Caller:
        """Who makes the call; raises Unauthenticated."""
        if self.signed_in is None:
            raise Unauthenticated
        return self.signed_in

    @property
    def loaders(self) -> Loaders:
        """The data loaders of this operation."""
        assert self._loaders is not None, "a resolver runs inside an operation"
        return self._loaders

    @property
    def search_budget(self) -> SearchBudget:
        """The budget of the searches of this operation."""
        assert self._search_budget is not None, "a resolver runs inside an operation"
        return self._search_budget

    def for_operation(self, search_budget: SearchBudget, *, keep: bool) -> "Context":
        """The context of one operation, with loaders of its own. Raises Unauthenticated.

        With `keep`, they cache what they have read until the operation ends.
        """
        loaders = Loaders(self.services, self.caller.account_id, keep=keep)
        return replace(self, _loaders=loaders, _search_budget=search_budget)

    async def sign_in(self, authorization: object) -> None:
        """Uses the credentials of `connection_init`, which override those of the handshake.

        Raises Unauthenticated.
        """
        if authorization is not None:
            if not isinstance(authorization, str):
                raise Unauthenticated
            self.signed_in = await caller_by(self.callers, authorization)
        elif self.signed_in is None:
            raise Unauthenticated


Info = strawberry.Info[Context, None]


async def context_of(connection: HTTPConnection) -> Context:
    """The context of a request or a handshake.

    Raises Unauthenticated for a request without credentials; a WebSocket may send them later.
    """
    state = connection.state
    signed_in: Caller | None = None
    try:
        signed_in = await caller_of(connection)
    except Unauthenticated:
        if connection.scope["type"] == "http":
            raise
    return Context(state.services, state.presence, state.callers, state.request_id, signed_in)
