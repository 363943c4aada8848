"""The task `code_qa`: a programming problem from a page, its solution and tests; only what passes its tests is kept.

The passage is inspiration, as in Llama-3-SynE (arXiv 2407.18743) and OSS-Instruct; the evidence is the run.
"""

import ast
import asyncio
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from mixer.recipe.synth import CodeQa
from synth import prompt, sandbox
from synth.answer import complete, parameters
from synth.candidate import Candidate, Check, SeedPage
from synth.request import Ask, NoAnswerError, Request
from synth.windows import Window, choose, windows

_PASSAGE_CHARS = 1500
_MOST_CHARS = {"problem": 4_000, "solution": 10_000, "tests": 10_000}
SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {name: {"type": "string", "minLength": 1, "maxLength": most} for name, most in _MOST_CHARS.items()},
    "required": list(_MOST_CHARS),
    "additionalProperties": False,
}
"""What an answer must look like, as JSON Schema."""
_FENCED = re.compile(r"\s*(?P<fence>`{3,}|~{3,})[^\n`]*\n(?P<inside>.*?)\n?[ \t]*(?P=fence)\s*", re.DOTALL)
_DEFINITION = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True, slots=True)
class CodePair:
    """A programming problem, Python that solves it, and tests for that."""

    problem: str
    solution: str
    tests: str


def parse(text: str) -> CodePair:
    """The pair in a model's answer, without Markdown fences around the whole or around its code.

    Raises NoAnswerError, whose text is one of `not JSON`, `not an object`, and for each part `no X`, `X is not text`,
    `X is empty` and `X is too long`.
    """
    try:
        answer = json.loads(_without_fence(text))
    except (ValueError, RecursionError):
        raise NoAnswerError("not JSON") from None
    if not isinstance(answer, dict):
        raise NoAnswerError("not an object")
    problem, solution, tests = (_part(answer, name) for name in _MOST_CHARS)
    return CodePair(problem, _without_fence(solution), _without_fence(tests))


def _part(answer: Mapping[str, Any], name: str) -> str:
    if name not in answer:
        raise NoAnswerError(f"no {name}")
    value = answer[name]
    if not isinstance(value, str):
        raise NoAnswerError(f"{name} is not text")
    if len(value) > _MOST_CHARS[name]:
        raise NoAnswerError(f"{name} is too long")
    if not _without_fence(value).strip():
        raise NoAnswerError(f"{name} is empty")
    return value.strip() if name == "problem" else value


def _without_fence(text: str) -> str:
    match = _FENCED.fullmatch(text)
    return match["inside"] if match else text


def verify(pair: CodePair, *, seconds: float = 5.0) -> list[Check]:
    """The checks `format`, `runs` and `meaningful`, in this order, up to the first that fails."""
    if problem := _format_problem(pair):
        return [Check("format", passed=False, score=0.0, detail=problem)]
    checks = [Check("format", passed=True, score=1.0)]
    verdict = sandbox.run(pair.solution, pair.tests, seconds=seconds)
    seen = verdict.reason if verdict.passed else f"{verdict.reason}\n{verdict.detail}".strip()
    checks.append(Check("runs", verdict.passed, float(verdict.passed), seen))
    if verdict.passed:
        noticed = sandbox.is_meaningful(pair.solution, pair.tests, seconds=seconds)
        checks.append(Check("meaningful", noticed, float(noticed), "" if noticed else "tests prove nothing"))
    return checks


def _format_problem(pair: CodePair) -> str:
    """What is wrong with the two programs as text; empty where nothing is."""
    try:
        solution, tests = ast.parse(pair.solution), ast.parse(pair.tests)
        defined = {node.name: _essence(node) for node in solution.body if isinstance(node, _DEFINITION)}
        repeated = {node.name for node in tests.body if isinstance(node, _DEFINITION)} & set(defined)
        copied = {_essence(node) for node in ast.walk(tests) if isinstance(node, _DEFINITION)} & set(defined.values())
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return f"does not parse: {type(error).__name__}"
    if not defined:
        return "solution defines no function and no class"
    if repeated or copied:
        return "tests define the solution again"
    if not set(_called(tests)) & set(defined):
        return "tests call nothing that the solution defines"
    return ""


def _essence(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> str:
    """Its parameters or bases and its body; the name, decorators and the way it is laid out do not matter."""
    head = node.bases if isinstance(node, ast.ClassDef) else [node.args]
    return "\n".join(ast.dump(part) for part in [*head, *node.body])


def _called(tests: ast.Module) -> Iterator[str]:
    """The names in what is called and in what is handed to a call, also behind `solution.`."""
    for call in ast.walk(tests):
        if isinstance(call, ast.Call):
            for node in ast.walk(call):
                if isinstance(node, ast.Name):
                    yield node.id
                elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "solution":
                    yield node.attr


def training_text(pair: CodePair) -> str:
    """The problem, then the solution in a fenced block whose fence is longer than any in the code."""
    longest = max(map(len, re.findall(r"`+", pair.solution)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{pair.problem}\n\n{fence}python\n{pair.solution.strip()}\n{fence}\n"


@dataclass(frozen=True, slots=True)
class CodeFlow:
    """The task `code_qa` with its settings: a problem, a solution and tests from each of a few passages of a page."""

    chat: ClassVar[bool] = True
    task: CodeQa
    seed: int

    async def __call__(self, page: SeedPage, ask: Ask) -> list[Candidate]:
        parts = windows(page.text, _PASSAGE_CHARS)
        chosen = choose(parts, self.task.pairs_per_page, self.seed, page.source, page.id)
        return list(
            await asyncio.gather(*(self._write(page, window, number, ask) for number, window in enumerate(chosen)))
        )

    async def _write(self, page: SeedPage, window: Window, number: int, ask: Ask) -> Candidate:
        name = f"code_qa.{page.language}"
        values = {"passage": page.text[window.start : window.end]}
        request = Request(
            prompt.messages(name, values=values), prompt.version(name), SCHEMA, parameters(self.task.sampling)
        )
        found = Candidate(f"{page.id}#{number}", page, window.start, window.end, prompt.version(name))
        try:
            response = await ask(request)
            found = replace(found, keys=(response.key,))
            pair = parse(complete(response))
        except NoAnswerError as error:
            return replace(found, reason=f"generation: {error}")
        # In a thread: the engine's other answers must not wait for this one's tests.
        checks = await asyncio.to_thread(verify, pair, seconds=self.task.seconds)
        reason = next((f"{check.name}: {check.detail.splitlines()[0]}" for check in checks if not check.passed), "")
        return replace(found, text=training_text(pair), checks=tuple(checks), reason=reason)
