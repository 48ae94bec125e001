"""The context of an operation: its caller and the services of the process."""

from dataclasses import dataclass, replace
from functools import cached_property

import strawberry
from starlette.requests import HTTPConnection

from server.errors import Unauthenticated
from server.graph.budget import ResponseBudget
from server.graph.loaders import Loaders
from server.identity.callers import Caller, Callers
from server.identity.credentials import caller_by, caller_of
from server.identity.presence import Presence
from server.resources import Services
from server.verbs.search import ScanBudget


@dataclass
class Context:
    """The context of resolvers. A WebSocket has one for the whole connection."""

    services: Services
    presence: Presence
    callers: Callers
    request_id: str
    signed_in: Caller | None
    budget: ResponseBudget | None = None

    @property
    def caller(self) -> Caller:
        """Who makes the call; raises Unauthenticated."""
        if self.signed_in is None:
            raise Unauthenticated
        return self.signed_in

    @cached_property
    def loaders(self) -> Loaders:
        """The data loaders of this execution."""
        assert self.budget is not None, "a resolver runs inside an execution"
        return Loaders(self.services, self.caller.account_id, self.budget)

    @cached_property
    def scans(self) -> ScanBudget:
        """The text that the searches of this execution may still scan."""
        return ScanBudget()

    def for_execution(self, budget: ResponseBudget) -> "Context":
        """The context of one operation, or of one event of a subscription."""
        return replace(self, budget=budget)

    def forget(self) -> None:
        """Frees what the loaders of this execution have read."""
        vars(self).pop("loaders", None)

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
