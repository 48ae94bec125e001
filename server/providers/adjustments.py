"""What a model's server turned out to want: learned from its refusals, kept for the process.

Servers that implement one format differ in the parameters they take. A refusal that names one is
answered by another try without it, or under its other name; one that says how much fits, by a
request for less. Nothing has been said by then.
"""

import re
from dataclasses import replace
from typing import Any, Final

from server.logs import log
from server.providers.base import Adjustments, ModelRequest, ProviderError

TRIES_MAX: Final = 8
"""More than there are things to learn about one model: some servers name one at a time."""

OUTPUT_MIN_TOKENS: Final = 64
"""A request for a shorter answer is not worth a try."""

LITTLE_TOKENS: Final = 1024
"""What is requested, once, if a server refuses more without saying how much fits."""

OPTIONAL: Final = ("stream_options", "temperature", "reasoning_effort")
LIMITS: Final = ("max_tokens", "max_completion_tokens")
_REFUSING: Final = re.compile(
    r"unsupported|not support|unrecogni[sz]ed|unexpected|unknown|invalid|validation|not permitted"
)
"""Words of a refusal that comes with 5xx: some servers report all errors as their own."""

_REFUSALS: Final = frozenset({"provider_refused", "invalid_request", "context_too_long"})
_CONTEXT: Final = re.compile(
    r"context (?:length|size|window)\D{0,40}?(\d{3,})"
    r"|max_new_tokens\W{1,3}must be <= (\d+)"
    r"|\d \+ \d+ > (\d+)"
)
_PROMPT: Final = re.compile(
    r"(\d+) (?:tokens )?(?:in the (?:messages|prompt|input)|(?:input|prompt) tokens)"
    r"|(?:messages|prompt|input) (?:resulted in|has|is|contains)\D{0,20}(\d+)"
    r"|given: (\d+)"
    r"|(\d+) \+ \d+ > \d"
)
_AT_MOST: Final = re.compile(
    r"(?:at most|maximum|max |<=|less than or equal to|\d >)\D{0,40}?(\d{2,})"
    r"|[\[(]\d+, ?(\d{2,})[\])]"
)
_SYSTEM_ROLE: Final = re.compile(
    r"system\W{0,3} role|role\W{1,3}system|system (?:message|prompt|instruction)"
)
_PREFILL: Final = re.compile(
    r"prefill|(?:last|final) (?:message|role)|(?:end|finish)s? with (?:a |an )?(?:user|assistant)"
    r"|continue_final_message|add_generation_prompt"
)


class Negotiation:
    """One request and what it becomes, until the server accepts it or there is nothing to try.

    `learned` is shared by all requests to a provider, by model.
    """

    def __init__(self, learned: dict[str, Adjustments], request: ModelRequest) -> None:
        self.request = request
        self.left_out = 0
        """How many of the oldest turns `request` lacks by now."""

        self.adjustments = learned.get(request.model, Adjustments())
        self._learned, self._model = learned, request.model
        self._room: int | None = None  # for the output of this request alone
        self._asked_for_little = self._accepted = False
        self._tries = 0

    def body(self, usual: dict[str, Any]) -> dict[str, Any]:
        """The request as this server wants it."""
        wanted = self.adjustments
        body = {name: value for name, value in usual.items() if name not in wanted.without}
        for name in LIMITS:
            if name in body:
                value = body.pop(name)
                limits = [value, wanted.output_max_tokens, self._room]
                body[wanted.limit or name] = min(each for each in limits if each is not None)
        return body

    def accepted(self) -> None:
        """Keeps what was learned for the next requests."""
        if self._accepted:
            return
        self._accepted = True
        if self._learned.get(self._model, Adjustments()) != self.adjustments:
            log.info("provider_adjusted", model=self._model, adjustments=self.adjustments.words())
            self._learned[self._model] = self.adjustments

    def refused(self, body: dict[str, Any], error: ProviderError) -> bool:
        """Learns from a refusal of this body; whether another try can succeed."""
        self._tries += 1
        words = error.message.lower()
        is_refusal = error.code in _REFUSALS or (
            error.code == "provider_unavailable" and _REFUSING.search(words) is not None
        )
        if self._tries == TRIES_MAX or not is_refusal:
            return False
        limit = next((name for name in LIMITS if name in body), None)
        if error.code == "context_too_long":
            less = limit is not None and self._ask_for_less(body[limit], words)
            return less or self._leave_turns_out()
        return (
            (limit is not None and self._change_limit(limit, body[limit], words))
            or self._leave_out(body, words)
            or self._ask_to_go_on(body, words)
            or self._move_system_prompt(body, words)
        )

    def refused_later(self, body: dict[str, Any], error: Exception) -> bool:
        """Learns from an error that came with status 200 instead of an answer.

        Without a status, an error whose type is not known may be a refusal as well.
        """
        if not isinstance(error, ProviderError):
            return False
        unknown = error.code == "provider_unavailable"
        refusal = ProviderError("provider_refused", error.message) if unknown else error
        return self.refused(body, refusal)

    def _ask_for_less(self, requested: int, words: str) -> bool:
        context, prompt = _number(_CONTEXT, words), _number(_PROMPT, words)
        if context and prompt:
            room = context - prompt
            fits = OUTPUT_MIN_TOKENS <= room < requested
            self._room = room if fits else self._room
            return fits
        if self._asked_for_little or requested <= LITTLE_TOKENS or "prompt is too long" in words:
            return False
        self._room, self._asked_for_little = LITTLE_TOKENS, True
        return True

    def _leave_turns_out(self) -> bool:
        """Leaves out the older half of the turns, or a little more: the first is a question."""
        turns = self.request.turns
        kept = turns[len(turns) // 2 :]
        while kept and kept[0].role != "user":
            kept = kept[1:]
        if not kept or len(kept) == len(turns):
            return False
        self.left_out += len(turns) - len(kept)
        self.request = self.request._replace(turns=kept)
        self._room = None
        return True

    def _change_limit(self, limit: str, requested: int, words: str) -> bool:
        if not re.search(rf"\b{limit}\b", words):
            return False
        most = _number(_AT_MOST, words)
        if 0 < most < requested:
            self.adjustments = replace(self.adjustments, output_max_tokens=most)
            return True
        if self.adjustments.limit is not None:
            return False  # refused under both names
        other = LIMITS[1 - LIMITS.index(limit)]
        self.adjustments = replace(self.adjustments, limit=other)
        return True

    def _leave_out(self, body: dict[str, Any], words: str) -> bool:
        named = {name for name in OPTIONAL if name in body and name in words}
        without = self.adjustments.without | named
        self.adjustments = replace(self.adjustments, without=without)
        return bool(named)

    def _move_system_prompt(self, body: dict[str, Any], words: str) -> bool:
        first: dict[str, Any] = next(iter(body.get("messages", [])), {})
        if first.get("role") != "system" or not _SYSTEM_ROLE.search(words):
            return False
        self.adjustments = replace(self.adjustments, system_as_user=True)
        return True

    def _ask_to_go_on(self, body: dict[str, Any], words: str) -> bool:
        last: dict[str, Any] = next(iter(body.get("messages", [])[-1:]), {})
        if last.get("role") != "assistant" or not _PREFILL.search(words):
            return False
        self.adjustments = replace(self.adjustments, no_prefill=True)
        return True


def _number(pattern: re.Pattern[str], words: str) -> int:
    found = pattern.search(words)
    return int(next(group for group in found.groups() if group)) if found else 0
