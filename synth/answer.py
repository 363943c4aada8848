"""A model's raw answer held against the schema that it was asked to meet; what does not fit is refused by name."""

import json
from collections.abc import Mapping
from typing import Any

from mixer.recipe.synth import Sampling
from synth.request import REFUSED, NoAnswerError, Response


def parameters(sampling: Sampling, *, max_tokens: int | None = None) -> dict[str, Any]:
    """The sampling parameters of a request, as the engine takes them."""
    return {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": max_tokens or sampling.max_tokens,
    }


def fields(response: Response, schema: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON object of an answer, checked once more on arrival.

    Raises:
        NoAnswerError: Cut off at the token limit, refused by the engine, not JSON, or not the schema's form.
    """
    import jsonschema

    text = complete(response)
    try:
        value = json.loads(text)
        jsonschema.validate(value, schema)
    except (ValueError, RecursionError) as error:
        raise NoAnswerError("not JSON") from error
    except jsonschema.ValidationError as error:
        raise NoAnswerError("not the asked form") from error
    found: dict[str, Any] = value
    return found


def complete(response: Response, *, may_be_cut: bool = False) -> str:
    """The text of an answer that came to its own end, or of any if it may be cut.

    Raises:
        NoAnswerError: It was cut off, or there is none.
    """
    if response.finish_reason == REFUSED:
        raise NoAnswerError("refused by the engine")
    if response.finish_reason != "stop" and not may_be_cut:
        raise NoAnswerError("cut off")
    if not response.text.strip():
        raise NoAnswerError("empty")
    return response.text
