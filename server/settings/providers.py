"""The settings of one provider: its server, the way to it, its models and its limits."""

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from server.settings.base import Seconds, Section, read_secret


def _base_url(others: dict[str, Any]) -> str:
    return (
        "https://api.anthropic.com"
        if others.get("kind") == "anthropic"
        else "https://api.openai.com/v1"
    )


class ProviderSettings(Section):
    """One server that hosts models, and the wire format it uses."""

    kind: Literal["openai", "anthropic"] = Field(
        "openai",
        description='The wire format: "openai" (/chat/completions) or "anthropic" (/v1/messages).',
    )
    base_url: str = Field(
        default_factory=_base_url,
        pattern=r"^https?://\S+$",
        json_schema_extra={"expected": "an http or https URL"},
        description="The base URL of the API. /v1 is added if it has no path.",
    )
    api_key_env: str = Field(
        "",
        description="The environment variable that holds the API key. If empty, and without "
        "api_key_file, the provider is used without a key.",
    )
    api_key_file: Path | None = Field(
        None, examples=["secrets/openai-key"], description="A file to read the API key from."
    )
    models: list[str] = Field(
        [], description="The models to offer. Requests name them `<provider>/<model>`."
    )
    prefill: list[str] = Field(
        [],
        description="Those of `models` that continue an answer whose beginning is the last message, "
        'e.g. ["claude-haiku-4-5"]; Claude 4.6 and later cannot. Others are asked to go on.',
    )
    prefill_body: dict[str, Any] = Field(
        {},
        description="Further members of requests that end with the beginning of an answer. vLLM "
        "wants {add_generation_prompt = false, continue_final_message = true}.",
    )
    prefill_message: dict[str, Any] = Field(
        {},
        description='For kind "openai": further members of that last message. Mistral and DeepSeek '
        "want {prefix = true}.",
    )
    proxy: str = Field(
        "",
        pattern=r"^(none|https?://\S+)?$",
        json_schema_extra={"expected": "'none', or the http or https URL of a proxy"},
        description='The proxy to this server, e.g. "http://user:password@proxy:3128"; "none" uses '
        "none. If empty, HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY apply.",
    )
    ca_file: Path | None = Field(
        None,
        examples=["secrets/ca.pem"],
        description="A file of certificates to trust instead of the system's.",
    )
    client_certificate: Path | None = Field(
        None,
        examples=["secrets/client.pem"],
        description="A file with the certificate to present to this server, with its chain.",
    )
    client_key: Path | None = Field(
        None,
        examples=["secrets/client-key.pem"],
        description="A file with the key of client_certificate, if that does not have it. It must "
        "not need a password.",
    )
    unix_socket: Path | None = Field(
        None,
        examples=["/run/model.sock"],
        description="The Unix socket on which this server listens. base_url then gives only the "
        'path and the Host header, e.g. "http://localhost/v1".',
    )
    connect_timeout_s: Seconds = Field(10, description="The connect timeout, in seconds.")
    first_token_timeout_s: Seconds = Field(
        300, description="The maximum wait for the first token of an answer, in seconds."
    )
    idle_timeout_s: Seconds = Field(
        120, description="The maximum wait between two tokens, in seconds."
    )
    context_tokens: int = Field(
        128_000,
        ge=256,
        description="The size of the models' context window, in tokens (128000 if not set). The "
        "oldest messages that do not fit are left out.",
    )
    output_max_tokens: int | None = Field(
        None,
        ge=1,
        examples=[4096],
        description="The models' own limit of an answer, in tokens. If not set, it is learned when "
        "a server refuses more.",
    )
    thinking_tags: Literal["detect", "open", "off"] = Field(
        "detect",
        description='For kind "openai": "detect" takes <think>…</think> at the beginning of an '
        'answer as reasoning. "open": answers begin inside it, because the models\' template opens '
        'it. "off": it is text.',
    )
    reasoning_effort: str = Field(
        "",
        pattern=r"^[a-z]{0,16}$",
        json_schema_extra={"expected": "a word such as low"},
        description='For kind "openai": how much the models reason, as their server calls it, e.g. '
        '"low". If empty, the server decides. Left out for models that refuse it.',
    )
    api_key_header: str = Field(
        "",
        pattern=r"^[A-Za-z0-9-]*$",
        examples=["api-key"],
        description="The header that holds the API key, if it is not the usual one of the format. "
        "Azure's is api-key.",
    )
    extra_headers: dict[str, str] = Field(
        {}, description="Further headers of every request to this server."
    )
    extra_body: dict[str, Any] = Field(
        {},
        description="Further members of every request for an answer. They replace the usual ones.",
    )

    @field_validator("prefill")
    @classmethod
    def _can_prefill(cls, names: list[str], others: ValidationInfo) -> list[str]:
        if set(names) - set(others.data.get("models", names)):
            raise ValueError("expected names that are in models")
        return names

    @property
    def wants_key(self) -> bool:
        """Whether this provider is off until it has a key."""
        return bool(self.api_key_env or self.api_key_file)

    def api_key(self) -> str | None:
        """The key, from its file or the environment; None if neither has one."""
        if self.api_key_file is not None:
            return read_secret(self.api_key_file)
        return os.environ.get(self.api_key_env) or None
