"""Loading settings: `config.toml`, then the environment. Unknown keys and bad values are errors."""

import json
import os
import re
import typing
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_settings import SettingsConfigDict
from pydantic_settings.exceptions import SettingsError as PydanticSettingsError

from server.errors import SettingsError
from server.settings.base import Section, read_secret
from server.settings.providers import ProviderSettings
from server.settings.sections import (
    LOOPBACK_HOSTS,
    PLATFORM_VARIABLES,
    DataSettings,
    GenerationSettings,
    GraphqlSettings,
)
from server.settings.settings import Settings, embedded_socket

__all__ = [
    "LOOPBACK_HOSTS",
    "GenerationSettings",
    "GraphqlSettings",
    "ProviderSettings",
    "Settings",
    "embedded_socket",
    "load_settings",
]

S = TypeVar("S", bound=Section)


def load_settings(config: Path | None = None, data_dir: Path | None = None) -> Settings:
    """The settings of this process: the file, then the environment, then `data_dir`.

    The file is `config`, else `TIDEMARK_CONFIG`, else `./config.toml` if it exists. Relative paths
    in it are relative to it. Raises SettingsError.
    """
    file = config or (Path(named) if (named := os.environ.get("TIDEMARK_CONFIG")) else None)
    if file is not None and not file.is_file():
        raise SettingsError(f"{file}: no such file.")
    file = file or (default if (default := Path("config.toml")).is_file() else None)
    _check_variables()

    class FromFile(Settings):
        model_config = SettingsConfigDict(toml_file=file)

    try:
        settings = FromFile()
    except ValidationError as error:
        raise SettingsError(_first_error(error, file)) from None
    except (PydanticSettingsError, ValueError, OSError) as error:
        raise SettingsError(f"{file or 'environment'}: {str(error).splitlines()[0]}") from None
    return _resolved(settings, file, data_dir)


def _resolved(settings: Settings, file: Path | None, data_dir: Path | None) -> Settings:
    """Makes paths absolute, reads URLs from their files, and applies platform variables."""
    base = file.resolve().parent if file else Path.cwd()
    values: dict[str, Any] = {
        name: _absolute(getattr(settings, name), base)
        for name in Settings.model_fields
        if name != "providers"
    }
    values["providers"] = {
        name: _absolute(provider, base) for name, provider in settings.providers.items()
    }
    if data_dir is not None:
        values["data"] = DataSettings(dir=data_dir.resolve())
    for (section, key), variable in PLATFORM_VARIABLES.items():
        secret_file = getattr(values[section], f"{key}_file", None)
        is_set = key in getattr(settings, section).model_fields_set
        if secret_file is not None:
            wrong = f"{secret_file}: the content is not a valid value for {section}.{key}"
            values[section] = _with(values[section], key, read_secret(secret_file), wrong)
        elif (value := os.environ.get(variable)) and not is_set:
            wrong = f"environment: {_shown(value)} is not a valid value for {variable}"
            values[section] = _with(values[section], key, value, wrong)
    url = values["database"].url
    if url.startswith("sqlite:///") and not url.startswith("sqlite:////"):
        values["database"] = values["database"].model_copy(
            update={"url": f"sqlite:///{base / url.removeprefix('sqlite:///')}"}
        )
    return settings.model_copy(update=values)


def _with(section: S, key: str, value: str, wrong: str) -> S:
    """The section with this value; raises SettingsError, which begins with `wrong`."""
    try:
        return type(section).model_validate({**section.model_dump(), key: value})
    except ValidationError as error:
        [first, *_] = error.errors()
        own = first["type"] == "value_error"
        expected = (
            str(first["ctx"]["error"]) if own else f"expected {_expected(type(section), key)}"
        )
        raise SettingsError(f"{wrong}: {expected}.") from None


def _absolute(section: S, base: Path) -> S:
    paths = {name: base / value for name, value in section if isinstance(value, Path)}
    return section.model_copy(update=paths)


def _check_variables() -> None:
    """Raises SettingsError for a `TIDEMARK_<SECTION>__<KEY>` that is not a setting."""
    for name, value in os.environ.items():
        if not name.startswith("TIDEMARK_") or "__" not in name:
            continue
        section, _, key = name.removeprefix("TIDEMARK_").lower().partition("__")
        field = Settings.model_fields.get(section)
        if field is None:
            sections = ", ".join(Settings.model_fields)
            raise SettingsError(
                f"environment: {name}: unknown section {section!r}: expected one of {sections}."
            )
        known = getattr(field.annotation, "model_fields", None)
        if known is None:
            continue
        if key not in known:
            raise SettingsError(
                f"environment: {name}: unknown setting {section}.{key}: expected one of "
                f"{', '.join(known)}."
            )
        # pydantic-settings would fail to parse it, and would not name the value.
        if typing.get_origin(known[key].annotation) is list and not _is_json_list(value):
            raise SettingsError(
                f"environment: {value!r} is not a valid value for {name}: "
                'expected a JSON list, e.g. ["a", "b"].'
            )


def _is_json_list(text: str) -> bool:
    try:
        return isinstance(json.loads(text), list)
    except ValueError:
        return False


def _first_error(error: ValidationError, file: Path | None) -> str:
    """One line that names the file or variable, the key, the bad value and what is expected."""
    first = error.errors()[0]
    path = [str(step) for step in first["loc"] if step != "[key]"]
    variable, key = "TIDEMARK_" + "__".join(path).upper(), ".".join(path)
    where, name = ("environment", variable) if variable in os.environ else (file or "settings", key)
    if first["type"] == "extra_forbidden":
        return f"{where}: unknown setting {name}."
    section: Any = Settings.model_fields[path[0]].annotation if path[0] != "providers" else None
    if path[0] == "providers" and len(path) > 2:
        section, path = ProviderSettings, path[1:]
    if first["type"] == "value_error" and str(first["ctx"]["error"]):
        expected = str(first["ctx"]["error"])
    elif first["loc"][-1] == "[key]":
        expected = "expected a name of at most 32 lowercase letters, digits, '-' and '_'"
    elif len(path) < 2 or section is None:
        expected = f"expected a table, [{key}]"
    else:
        expected = f"expected {_expected(section, path[1])}"
    return f"{where}: {_shown(first['input'])} is not a valid value for {name}: {expected}."


def _expected(section: type[BaseModel], key: str) -> str:
    """What a valid value of this setting is, e.g. `an integer from 0 to 65535`."""
    field = section.model_json_schema()["properties"][key]
    kinds = {"integer": "an integer", "number": "a number", "boolean": "true or false"}
    kinds |= {"string": "a string", "array": "a list of strings"}
    if "expected" in field:
        return str(field["expected"])
    if "enum" in field:
        return " or ".join(map(repr, field["enum"]))
    is_path = "path" in (field.get("format"), field.get("anyOf", [{}])[0].get("format"))
    expected = "a path" if is_path else kinds[field["type"]]
    low, high = field.get("minimum"), field.get("maximum")
    if "exclusiveMinimum" in field:
        expected += f" greater than {field['exclusiveMinimum']}"
        return expected if high is None else f"{expected} and at most {high}"
    if low is None:
        return expected
    return f"{expected} of at least {low}" if high is None else f"{expected} from {low} to {high}"


def _shown(value: object) -> str:
    """A bad value for an error message, without the password that a URL can contain."""
    return re.sub(r"//[^/@]*@", "//…@", repr(value))
