"""One question to a model, and what came back; both plain values, hashed by everything that can change the answer."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mixer.run import digest

TEXT = "text"
"""Role of the only message of a request that is to be continued as plain text, not answered as a chat."""
REFUSED = "refused"
"""Finish reason in the log of a request that the engine would not take; its text is the engine's message."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a model is asked.

    Args:
        messages: Chat messages with `role` and `content`, fully rendered.
        prompt: Name and hash of the prompt file, for provenance.
        schema: JSON Schema that the answer must meet, or None for free text.
        parameters: Sampling parameters, such as temperature, top_p, max_tokens.
        index: Which of several independent answers to the same question this is.
    """

    messages: tuple[Mapping[str, str], ...]
    prompt: str
    schema: Mapping[str, Any] | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    index: int = 0

    def key(self, model: str) -> str:
        """The address of the answer in the response log; `model` is the model's fingerprint."""
        return digest([model, list(self.messages), self.schema, dict(self.parameters), self.index])


@dataclass(frozen=True, slots=True)
class Response:
    """What a model answered: the raw text, why it ended, tokens in and out, and the address in the log."""

    text: str
    finish_reason: str
    key: str
    prompt_tokens: int = 0
    completion_tokens: int = 0


class NoAnswerError(Exception):
    """A request has no usable answer; the text says why, in words that can be counted."""


Ask = Callable[[Request], Awaitable[Response]]
"""Asks the model, or looks into the log. Raises NoAnswerError."""
