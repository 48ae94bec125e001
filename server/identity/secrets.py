"""Secrets: API keys, session cookies and sign-in links. Only their SHA-256 is stored."""

import secrets
import string
from hashlib import sha256
from typing import NamedTuple
from zlib import crc32

KEY_PREFIX = "tmk_"
SHOWN_PREFIX_CHARS = 8
_BODY_CHARS, _CHECK_CHARS = 40, 6
_ALPHABET = string.digits + string.ascii_letters


class NewKey(NamedTuple):
    """A key that was just created. `secret` is for its owner alone."""

    secret: str
    prefix: str
    sha256: str


def new_key() -> NewKey:
    """A key: `tmk_`, 40 random characters, and a checksum.

    The checksum lets a mistyped key be refused without a look-up.
    """
    body = "".join(secrets.choice(_ALPHABET) for _ in range(_BODY_CHARS))
    secret = f"{KEY_PREFIX}{body}{_checksum(body)}"
    return NewKey(secret, secret[: len(KEY_PREFIX) + SHOWN_PREFIX_CHARS], digest(secret))


def is_key(text: str) -> bool:
    """Whether `text` has the form of a key, checksum included."""
    body, check = text[len(KEY_PREFIX) : -_CHECK_CHARS], text[-_CHECK_CHARS:]
    return (
        text.startswith(KEY_PREFIX)
        and text.isascii()
        and len(body) == _BODY_CHARS
        and _checksum(body) == check
    )


def new_token() -> str:
    """A random token for a cookie or a link, 256 bits."""
    return secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    """What is stored of a secret."""
    return sha256(secret.encode()).hexdigest()


def _checksum(body: str) -> str:
    number, digits = crc32(body.encode()), []
    for _ in range(_CHECK_CHARS):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(digits)
