"""Continuing an answer that was cut: what a model is sent of it, and what it repeats.

Some models go on in the middle of a sentence if the last message is the beginning of their answer
(prefill). Others answer anew, or refuse: they are asked to go on (docs/decisions/0008).
"""

from collections.abc import Container

from server.parts import joined_text
from server.providers.base import Adjustments, ModelRequest, Turn

GO_ON = (
    "Your answer was cut off. Go on exactly where it ends. Repeat nothing of it, "
    "and say nothing about the interruption."
)
"""The request to a model that cannot continue its own message."""


def can_prefill(request: ModelRequest, prefill: Container[str], learned: Adjustments) -> bool:
    """Whether the prefix is sent as the beginning of the answer.

    Only text can be: reasoning and tool calls cannot be sent back.
    """
    only_text = all(part["type"] == "text" for part in request.prefix)
    return (
        request.model in prefill
        and not learned.no_prefill
        and only_text
        and bool(joined_text(request.prefix).strip())
    )


def prefix_turns(request: ModelRequest, *, prefilled: bool) -> list[Turn]:
    """The turns after the question: the prefix, and a request to go on unless it is prefilled."""
    # Anthropic's API refuses trailing white space, and a template may remove it.
    text = joined_text(request.prefix).rstrip()
    if not text:
        return []
    turns = [Turn("assistant", [{"type": "text", "text": text}])]
    return turns if prefilled else [*turns, Turn("user", [{"type": "text", "text": GO_ON}])]


def white_space_after(text: str) -> str:
    """The white space at the end of a prefix, which is not sent."""
    return text[len(text.rstrip()) :]


def drop_repeated(text: str, white_space: str) -> tuple[str, str]:
    """`text` without the `white_space` it repeats, and what of that the next text may still repeat.

    `white_space` ends the prefix that the model continues. It is not sent, so the model often
    begins with it; what is repeated is dropped, once.
    """
    repeated = 0
    while repeated < min(len(text), len(white_space)) and text[repeated] == white_space[repeated]:
        repeated += 1
    return text[repeated:], white_space[repeated:] if repeated == len(text) else ""
