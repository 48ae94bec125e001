"""What all tables of the configuration have in common."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from server.errors import SettingsError

Seconds = Annotated[float, Field(gt=0, le=86_400 * 365)]


class Section(BaseModel):
    """One table of the file. Every field has a `description`, which `config.toml` repeats.

    `expected` in a field's schema describes a valid value, where types and bounds do not suffice.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)


def read_secret(file: Path) -> str:
    """The content of a file without white space around it. Raises SettingsError."""
    try:
        return file.read_text().strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SettingsError(f"{file}: cannot read the secret: {reason}.") from None
