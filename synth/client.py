"""Asking an endpoint one question: what status means what, what is tried again, and what goes into the log.

Only the engine's own verdict on a request is an answer to it: refused as malformed (400, 413, 422), or failed each time
although the engine is well (500). A key that is not taken or a model that is not there is an error at once.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import httpx
from datatrove.pipeline.inference.run_inference import InferenceConfig
from datatrove.pipeline.inference.servers import EndpointServer
from datatrove.pipeline.inference.types import InferenceError, InferenceResult, ServerError

from mixer.errors import EngineError
from synth.answer import REFUSED
from synth.engine import Endpoint, answers
from synth.log import ResponseLog
from synth.request import TEXT, Request, Response

Generate = Callable[[dict[str, Any]], Coroutine[Any, Any, InferenceResult]]

_ATTEMPTS = 4
"""Each of them waits some five minutes for a connection, which is datatrove's patience."""
_SAME_FAULT = 3
_PAUSE_S = 5.0
_LONGEST_S = 1800.0
_MALFORMED = {400, 413, 422}
_BUSY = {408, 429, 502, 503, 504}
AGAIN = "run it again: what was answered is in the log and is not asked again"


class RefusedError(Exception):
    """The endpoint will not take this request; the text is its message."""


class Client(EndpointServer):  # type: ignore[misc]
    """The endpoint as datatrove's runner sees it.

    datatrove's own asks `/v1/models` without the key, sends no key to a local address, and tells errors by their words.
    """

    def __init__(self, endpoint: Endpoint, config: InferenceConfig, rank: int) -> None:
        super().__init__(config, rank)
        # The key is put in here, not into the pipeline: an executor writes that to disk.
        headers = {"Authorization": f"Bearer {endpoint.key}"} if endpoint.key else {}
        self._http = httpx.AsyncClient(headers=headers, timeout=None, limits=httpx.Limits(max_connections=None))

    async def is_ready(self) -> bool:
        """True: `engine.serve` has seen to it."""
        return True

    async def _make_request(self, payload: dict[str, Any]) -> dict[str, Any]:
        path = "chat/completions" if self.config.use_chat else "completions"
        url = f"{self.get_base_url()}/v1/{path}"
        try:
            response = await self._http.post(url, json=payload)
        except httpx.TransportError as error:
            raise ConnectionError(str(error)) from error
        _check_status(response.status_code, response.text, url)
        found: dict[str, Any] = response.json()
        return found


def _check_status(status: int, body: str, url: str) -> None:
    """Raise for a status other than 200, by what can be done about it."""
    said = f"status {status}: {body[:400]}"
    if status == 200:
        return
    if status in _MALFORMED:
        raise InferenceError(None, RefusedError(said))
    if status in _BUSY:
        raise ConnectionError(said)
    if status >= 500:
        raise ServerError(said)
    hint = "check the model's `endpoint`, `name` and `key_env`"
    raise InferenceError(None, EngineError(f"engine at {url}: got {said}, expected an answer", hint=hint))


def cause_of(error: Exception) -> Exception:
    """What lies inside the errors that datatrove wraps around each other."""
    while isinstance(error, InferenceError) and isinstance(error.error, Exception):
        error = error.error
    return error


class Asker:
    """Asks the engine what the log doesn't hold, and writes the answer down before anyone sees it."""

    def __init__(self, generate: Generate, log: ResponseLog, endpoint: Endpoint) -> None:
        self._generate, self._log, self._endpoint = generate, log, endpoint

    async def __call__(self, request: Request) -> Response:
        found = self._log.find(request)
        if found is None:
            found = await self._asked(request)
            self._log.add(request, found)
        return found

    async def _asked(self, request: Request) -> Response:
        """One answer, with patience for an engine that died and is being started again."""
        empty = Response("", REFUSED, request.key(self._endpoint.fingerprint))
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                result = await self._while_alive(self._generate(payload(request)))
            except (ServerError, InferenceError) as error:
                cause = cause_of(error)
                if isinstance(cause, RefusedError) or await self._is_at_fault(cause, attempt):
                    return replace(empty, text=str(cause)[:500])
                if isinstance(cause, EngineError) or attempt == _ATTEMPTS:
                    raise
                await asyncio.sleep(_PAUSE_S)
                continue
            usage = result.usage
            return replace(
                empty,
                text=result.text,
                finish_reason=result.finish_reason,
                prompt_tokens=usage.get("prompt_tokens", 0),
                completion_tokens=usage.get("completion_tokens", 0),
            )
        raise AssertionError("unreachable")

    async def _is_at_fault(self, cause: Exception, attempt: int) -> bool:
        """Whether the engine is well and fails on this request each time."""
        if not isinstance(cause, ServerError) or attempt < _SAME_FAULT:
            return False
        return await asyncio.to_thread(answers, self._endpoint.url)

    async def _while_alive(self, asked: Coroutine[Any, Any, InferenceResult]) -> InferenceResult:
        task = asyncio.ensure_future(asked)
        waited = 0.0
        while not task.done():
            await asyncio.wait({task}, timeout=1.0)
            waited += 1.0
            if self._endpoint.failed.is_file() or waited > _LONGEST_S:
                task.cancel()
                reason = self._endpoint.failed.read_text("utf-8") if self._endpoint.failed.is_file() else "no answer"
                raise EngineError(reason, hint=AGAIN)
        return task.result()


def payload(request: Request) -> dict[str, Any]:
    """The request in OpenAI's words."""
    if request.messages[0]["role"] == TEXT:
        return {"prompt": request.messages[0]["content"], **request.parameters}
    found: dict[str, Any] = {"messages": list(request.messages), **request.parameters}
    if request.schema is not None:
        schema = {"name": "answer", "schema": request.schema, "strict": True}
        found["response_format"] = {"type": "json_schema", "json_schema": schema}
    return found
