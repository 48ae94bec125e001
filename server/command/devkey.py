"""The development key: on loopback, `up` writes an API key into the data folder, for curl."""

import os
from pathlib import Path

from sqlmodel import Session

from server.history.accounts import add_key, find_key, get_or_create_account
from server.history.database import Database
from server.identity.secrets import NewKey, digest, new_key

ACCOUNT = "local"


def dev_key_file(data_dir: Path) -> Path:
    return data_dir / "dev-key"


async def write_dev_key(database: Database, data_dir: Path) -> None:
    """Makes sure that the file has a valid key; it is created with mode 0600."""
    file = dev_key_file(data_dir)
    present = file.read_text().strip() if file.is_file() else ""
    valid = await database.read(find_key, digest(present)) if present else None
    if valid is not None:
        return
    key = new_key()
    await database.write(_store, key)
    fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w") as opened:
        opened.write(f"{key.secret}\n")


def _store(session: Session, key: NewKey) -> None:
    add_key(
        session,
        get_or_create_account(session, ACCOUNT).id,
        "development key of this machine",
        prefix=key.prefix,
        sha256=key.sha256,
    )
