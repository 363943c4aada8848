"""Asking an endpoint one question: what status means what, what is tried again, and what goes into the log.

Only the engine's own verdict on a request is an answer to it: refused as malformed (400, 413, 422), or failed each time
although the engine is well (500). A key that is not taken or a model that is not there is an error at once.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import httpx
from datatrove.pipeline.inference.run_inference import InferenceConfig
from datatrove.pipeline.inference.servers import EndpointServer
from datatrove.pipeline.inference.servers.base import InferenceServer
from datatrove.pipeline.inference.types import InferenceError, InferenceResult, ServerError

from mixer.errors import EngineError
from synth.engine import Endpoint, answers, is_loopback
from synth.log import ResponseLog
from synth.request import REFUSED, TEXT, Request, Response

Generate = Callable[[dict[str, Any]], Coroutine[Any, Any, InferenceResult]]

_ATTEMPTS = 4
"""Each of them waits some five minutes for a connection, which is datatrove's patience."""
_SAME_FAULT = 3
_PAUSE_S = 5.0
_LONGEST_S = 1800.0
_ALL_REFUSED = 8
"""Refusals without a single answer after which the engine, not the requests, is at fault."""
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
        # Past the parent's own, which would make a client of another library, with its key.
        InferenceServer.__init__(self, config, rank)
        self.endpoint_url = endpoint.url
        # The key is put in here, not into the pipeline: an executor writes that to disk.
        headers = {"Authorization": f"Bearer {endpoint.key}"} if endpoint.key else {}
        limits = httpx.Limits(max_connections=None)
        self._http = httpx.AsyncClient(
            headers=headers, timeout=_LONGEST_S, limits=limits, trust_env=not is_loopback(endpoint.url)
        )

    async def is_ready(self) -> bool:
        """True: `engine.serve` has seen to it."""
        return True

    async def __aexit__(self, kind: Any, error: Any, trace: Any) -> None:
        await super().__aexit__(kind, error, trace)
        await self._http.aclose()

    async def _make_request(self, payload: dict[str, Any]) -> dict[str, Any]:
        path = "chat/completions" if self.config.use_chat else "completions"
        url = f"{self.get_base_url()}/v1/{path}"
        try:
            response = await self._http.post(url, json=payload)
        except httpx.ReadTimeout as error:
            told = f"engine at {url}: got no answer in {_LONGEST_S:.0f} s, expected one"
            raise InferenceError(None, EngineError(told, hint=AGAIN)) from error
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


class Refusals:
    """Refused requests that are not written down yet, because the engine has not taken any.

    An engine that takes none has another trouble than the requests, and its refusals must not be kept as answers.
    """

    def __init__(self) -> None:
        self._held: list[tuple[Request, Response]] = []
        self._has_answered = False

    def add(self, request: Request, response: Response, log: ResponseLog) -> None:
        """Write an answer down, or hold a refusal back.

        Raises:
            EngineError: The engine has refused the first requests one and all.
        """
        if response.finish_reason == REFUSED and not self._has_answered:
            self._held.append((request, response))
            if len(self._held) >= _ALL_REFUSED:
                raise EngineError(
                    f"engine: got {_ALL_REFUSED} refusals and no answer ({response.text}), expected answers",
                    hint="check the model's `endpoint`, `name`, `arguments` and `max_model_len`",
                )
            return
        self._has_answered = True
        self.flush(log)
        log.add(request, response)

    def flush(self, log: ResponseLog) -> None:
        """Write down what was held back."""
        while self._held:
            log.add(*self._held.pop())


class Asker:
    """Asks the engine what the log doesn't hold, and writes the answer down before anyone sees it.

    Args:
        generate: Sends one payload.
        log: Open to be added to.
        endpoint: The engine.
        refusals: Shared by all askers of one log.
        running: Requests under way, by address, shared too: the same question asked twice at once has one answer.
    """

    def __init__(
        self,
        generate: Generate,
        log: ResponseLog,
        endpoint: Endpoint,
        refusals: Refusals,
        running: dict[str, "asyncio.Task[Response]"],
    ) -> None:
        self._generate, self._log, self._endpoint = generate, log, endpoint
        self._refusals, self._running = refusals, running

    async def __call__(self, request: Request) -> Response:
        found = self._log.find(request)
        if found is not None:
            return found
        key = request.key(self._endpoint.fingerprint)
        task = self._running.get(key)
        if task is None:
            task = self._running[key] = asyncio.ensure_future(self._answered(request))
            task.add_done_callback(lambda _: self._running.pop(key, None))
        return await task

    async def _answered(self, request: Request) -> Response:
        found = await self._asked(request)
        self._refusals.add(request, found, self._log)
        return found

    async def _asked(self, request: Request) -> Response:
        """One answer, with patience for an engine that died and is being started again."""
        empty = Response("", REFUSED, request.key(self._endpoint.fingerprint))
        faults = 0
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                result = await self._while_alive(self._generate(payload(request)))
            except (ServerError, InferenceError) as error:
                cause = cause_of(error)
                faults += isinstance(cause, ServerError)
                if isinstance(cause, RefusedError) or await self._is_at_fault(faults):
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

    async def _is_at_fault(self, faults: int) -> bool:
        """Whether the engine is well and fails on this request each time."""
        return faults >= _SAME_FAULT and await asyncio.to_thread(answers, self._endpoint.url)

    async def _while_alive(self, asked: Coroutine[Any, Any, InferenceResult]) -> InferenceResult:
        """The result, unless the engine is given up before it comes."""
        task = asyncio.ensure_future(asked)
        while not task.done():
            await asyncio.wait({task}, timeout=1.0)
            if not task.done() and self._endpoint.failed.is_file():
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
                raise EngineError(self._endpoint.failed.read_text("utf-8"), hint=AGAIN)
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
