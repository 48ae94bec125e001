"""The models that this installation offers, and their providers."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple

from server.errors import Invalid, SettingsError
from server.providers import anthropic, openai
from server.providers.base import Provider
from server.providers.demo import Demo
from server.settings import LOOPBACK_HOSTS, ProviderSettings, Settings

DEMO = "demo"


class Kind(NamedTuple):
    """A wire format: its provider class, its URLs, and its headers with the key."""

    provider: Callable[[ProviderSettings, str | None], Provider]
    url_of: Callable[[str, str], str]
    headers_of: Callable[[str], dict[str, str]]


KINDS = {
    "openai": Kind(openai.OpenAI, openai.url_of, openai.headers_of),
    "anthropic": Kind(anthropic.Anthropic, anthropic.url_of, anthropic.headers_of),
}


class Model(NamedTuple):
    """A model that can be requested: `id` is `<provider>/<name>`, or `demo`."""

    id: str
    provider: str
    name: str
    context_tokens: int
    output_max_tokens: int | None = None


class Models:
    """The models that this installation offers. Opens no connections. Raises SettingsError."""

    def __init__(self, settings: Settings) -> None:
        providers = usable_providers(settings)
        self.all = [
            Model(
                f"{provider}/{name}",
                provider,
                name,
                upstream.context_tokens,
                upstream.output_max_tokens,
            )
            for provider, upstream in providers.items()
            for name in upstream.models
        ]
        others = list(self.all)
        if _offers_demo(settings, others):
            self.all.insert(0, Model(DEMO, DEMO, DEMO, Demo.context_tokens))
        if not self.all:
            raise SettingsError(
                "No model is available: set the API key of a provider, or generation.demo = true."
            )
        self._by_id = {model.id: model for model in self.all}
        named = self._named(settings, "default_model")
        self.default = named or (others or self.all)[0]
        self.titles = self._named(settings, "title_model")
        """The model that titles conversations; None for each conversation's own."""

    def is_default(self, model: Model) -> bool:
        """Whether this model is used when no model is specified."""
        return model == self.default

    def find(self, name: str) -> Model:
        """The model with this id, or with this name if it is unique; raises Invalid."""
        if model := self._by_id.get(name):
            return model
        bare = [model for model in self.all if model.name == name]
        if len(bare) == 1:
            return bare[0]
        reason = (
            f"{name[:200]!r} is ambiguous: expected one of {', '.join(m.id for m in bare)}"
            if bare
            else f"unknown model {name[:200]!r}"
        )
        raise Invalid.at("/model", reason, code="unknown_model")

    def id_of(self, name: str | None) -> str:
        """The full id of a name, or of the default model without one; raises Invalid."""
        return (self.find(name) if name else self.default).id

    def _named(self, settings: Settings, key: str) -> Model | None:
        """The model in a setting, if it is set; raises SettingsError."""
        name: str = getattr(settings.generation, key)
        try:
            return self.find(name) if name else None
        except Invalid as error:
            known = ", ".join(model.id for model in self.all)
            raise SettingsError(
                f"generation.{key} = {name!r}: unknown model: expected one of {known}."
            ) from error


def _offers_demo(settings: Settings, others: list[Model]) -> bool:
    if settings.generation.demo == "loopback":
        server = settings.server
        return not others or (server.host in LOOPBACK_HOSTS and not server.public_url)
    return bool(settings.generation.demo)


def usable_providers(settings: Settings) -> dict[str, ProviderSettings]:
    """The providers that need no API key, and those that have one."""
    return {
        name: provider
        for name, provider in settings.providers.items()
        if not provider.wants_key or provider.api_key()
    }


def adjusted_models(providers: Mapping[str, Provider]) -> dict[str, list[str]]:
    """What the servers of these providers turned out to want, by model id, in words."""
    return {
        f"{name}/{model}": words
        for name, provider in providers.items()
        for model, learned in provider.learned.items()
        if (words := learned.words())
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
