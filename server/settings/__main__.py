"""Generates `config.toml`: `python -m server.settings > config.toml`."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import wrap

from pydantic.fields import FieldInfo

from server.settings.base import Section
from server.settings.sections import PLATFORM_VARIABLES
from server.settings.settings import Settings

WIDTH = 100
HEAD = """\
# Every setting of Tidemark, with its default.
#
# Environment variables override this file: TIDEMARK_<SECTION>__<KEY>, e.g.
# TIDEMARK_SERVER__PORT=9000; a list is written as JSON. Unknown keys are errors.
# Relative paths are relative to this file.
#
# This file is generated: python -m server.settings > config.toml
"""
PROVIDERS = (
    "Providers host the models. A provider whose API key is missing is off. Add any server that "
    "implements OpenAI's /chat/completions or Anthropic's /v1/messages as [providers.<name>]. "
    "If this file has any of these tables, the default providers below are not added."
)


def config_file() -> str:
    """The text of `config.toml`."""
    settings, lines = Settings.model_construct(), [HEAD]
    for name in Settings.model_fields:
        if name != "providers":
            lines += _table(name, getattr(settings, name))
    lines += [*_comment(PROVIDERS), ""]
    for index, (name, provider) in enumerate(settings.providers.items()):
        lines += _table(f"providers.{name}", provider, in_full=index == 0)
    return "\n".join(lines).rstrip() + "\n"


def _table(name: str, section: Section, *, in_full: bool = True) -> Iterator[str]:
    """One table: every key with its description, or only the keys that are set, without."""
    yield f"[{name}]"
    for key, field in type(section).model_fields.items():
        if in_full:
            variable = PLATFORM_VARIABLES.get((name, key))
            description = field.description or ""
            if variable:
                description += f" If not set here, {variable} from the environment is used."
            yield from ["", *_comment(description)]
            yield _line(key, field, getattr(section, key), commented_out=variable is not None)
        elif key in section.model_fields_set:
            yield _line(key, field, getattr(section, key))
    yield ""


def _line(key: str, field: FieldInfo, value: object, *, commented_out: bool = False) -> str:
    if value is None:
        value, commented_out = (field.examples or [""])[0], True
    text = json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)
    if isinstance(value, float) and value.is_integer():
        text = str(int(value))
    return f"{'# ' if commented_out else ''}{key} = {text}"


def _comment(text: str) -> list[str]:
    return wrap(
        text,
        WIDTH,
        initial_indent="# ",
        subsequent_indent="# ",
        break_on_hyphens=False,
        break_long_words=False,
    )


if __name__ == "__main__":
    sys.stdout.write(config_file())
