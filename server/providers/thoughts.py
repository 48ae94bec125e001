"""Thoughts in the text: `<think>…</think>` at the beginning of an answer is reasoning."""

from enum import Enum, auto

from server.providers.base import Delta, ReasoningDelta, TextDelta

OPENING = ("<think>", "<thinking>")
CLOSING = ("</think>", "</thinking>")


class _State(Enum):
    HEAD = auto()  # nothing but white space, or a part of an opening tag
    THOUGHT = auto()
    AFTER = auto()  # the white space between the thought and the answer
    ANSWER = auto()


class Thoughts:
    """Tells the thought of one answer from its text, wherever the stream is cut.

    `opened`: the answer begins inside a thought, because the model's template opens it. Without it,
    a closing tag at the very beginning ends a thought that the template or the server removed. Tags
    that are not at the beginning are text.
    """

    def __init__(self, *, opened: bool = False) -> None:
        self._state = _State.THOUGHT if opened else _State.HEAD
        self._held = ""
        self._thought_begun = False

    def feed(self, text: str) -> list[Delta]:
        """The deltas of the next text. What may be a part of a tag is held back."""
        if self._state is _State.ANSWER:
            return [TextDelta(text)]
        text, self._held = self._held + text, ""
        if self._state is _State.HEAD:
            text = self._after_tag(text)
        deltas: list[Delta] = []
        if self._state is _State.THOUGHT:
            thought, text = self._until_closing(text)
            if thought:
                deltas.append(ReasoningDelta(thought))
        if self._state is _State.AFTER:
            text = text.lstrip()
            if text:
                self._state = _State.ANSWER
        if text:
            deltas.append(TextDelta(text))
        return deltas

    def end(self) -> list[Delta]:
        """What was held back, at the end of the answer."""
        held, self._held = self._held, ""
        if not held:
            return []
        is_thought = self._state is _State.THOUGHT
        return [ReasoningDelta(held) if is_thought else TextDelta(held)]

    def _after_tag(self, text: str) -> str:
        head = text.lstrip()
        for tag in OPENING:
            if head.startswith(tag):
                self._state = _State.THOUGHT
                return head[len(tag) :]
        for tag in CLOSING:
            if head.startswith(tag):
                self._state = _State.AFTER
                return head[len(tag) :]
        if any(tag.startswith(head) for tag in OPENING + CLOSING):
            self._held = text
            return ""
        self._state = _State.ANSWER
        return text

    def _until_closing(self, text: str) -> tuple[str, str]:
        """The thought in this text, and what follows it."""
        found = [(at, tag) for tag in CLOSING if (at := text.find(tag)) >= 0]
        if found:
            at, tag = min(found)
            self._state = _State.AFTER
            thought, rest = text[:at], text[at + len(tag) :]
        else:
            at = text.rfind("<")
            cut = at if at >= 0 and any(tag.startswith(text[at:]) for tag in CLOSING) else len(text)
            thought, self._held, rest = text[:cut], text[cut:], ""
        if not self._thought_begun:
            thought = thought.lstrip()
            self._thought_begun = bool(thought)
        return thought, rest
