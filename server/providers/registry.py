"""The providers of this process, and which model a name means."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

from server.errors import Invalid, SettingsError
from server.providers import anthropic, openai
from server.providers.base import Provider
from server.providers.demo import Demo
from server.settings import ProviderSettings, Settings

DEMO = "demo"


class Kind(NamedTuple):
    """A wire format: who speaks it, where its paths are under a base URL, and which headers show a key."""

    provider: Callable[[ProviderSettings, str | None], Provider]
    url_of: Callable[[str, str], str]
    headers_of: Callable[[str], dict[str, str]]


KINDS = {
    "openai": Kind(openai.OpenAI, openai.url_of, openai.headers_of),
    "anthropic": Kind(anthropic.Anthropic, anthropic.url_of, anthropic.headers_of),
}


class Model(NamedTuple):
    """A model that can be asked for: `id` is `<provider>/<name>`, or `demo`."""

    id: str
    provider: str
    name: str
    context_tokens: int


class Models:
    """The models this installation offers; knows nothing of connections, so that the web process needs none."""

    def __init__(self, settings: Settings) -> None:
        self.all = [Model(DEMO, DEMO, DEMO, Demo.context_tokens)]
        for provider, upstream in usable_providers(settings).items():
            self.all += [
                Model(f"{provider}/{name}", provider, name, upstream.context_tokens)
                for name in upstream.models
            ]
        self._by_id = {model.id: model for model in self.all}
        self.default = self._named(settings, "default_model") or (
            self.all[1] if len(self.all) > 1 else self.all[0]
        )
        self.titles = self._named(settings, "title_model")
        """Who names conversations; None: the model of each."""

    def find(self, name: str) -> Model:
        """The model of this id, or of this bare name where only one has it; raises Invalid."""
        if model := self._by_id.get(name):
            return model
        bare = [model for model in self.all if model.name == name]
        if len(bare) == 1:
            return bare[0]
        reason = (
            f"{name[:200]!r} is offered by {', '.join(m.id for m in bare)}"
            if bare
            else f"there is no model {name[:200]!r}"
        )
        raise Invalid(
            "unknown_model", f"model: {reason}.", errors=[{"pointer": "/model", "detail": reason}]
        )

    def id_of(self, name: str | None) -> str:
        """The full id of a name, or of the default where there is none; raises Invalid."""
        return (self.find(name) if name else self.default).id

    def _named(self, settings: Settings, key: str) -> Model | None:
        """The model that a setting names; raises SettingsError where there is none of that name."""
        name: str = getattr(settings.generation, key)
        try:
            return self.find(name) if name else None
        except Invalid as error:
            known = ", ".join(model.id for model in self.all)
            raise SettingsError(
                f"generation.{key} = {name!r}: one of {known} is allowed."
            ) from error


def usable_providers(settings: Settings) -> dict[str, ProviderSettings]:
    """The providers that can be asked: those that want no key, and those that have it."""
    return {
        name: provider
        for name, provider in settings.providers.items()
        if not provider.wants_key or provider.api_key()
    }


@asynccontextmanager
async def open_providers(settings: Settings) -> AsyncIterator[dict[str, Provider]]:
    """The providers by name, with their connections, closed at the end."""
    providers: dict[str, Provider] = {DEMO: Demo()}
    try:
        for name, upstream in usable_providers(settings).items():
            providers[name] = KINDS[upstream.kind].provider(
                upstream, upstream.api_key() if upstream.wants_key else None
            )
        yield providers
    finally:
        for provider in providers.values():
            await provider.close()
