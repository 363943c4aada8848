"""Conversations as training reads them: rendered by the chat template, tokenized in the pieces a user's turn cuts.

Only answers are predicted, with the token that ends them: what stands before an answer is encoded apart from it, as it
is when the model is asked. A conversation whose text holds a control token is left out and counted, since the template
would let it speak for another role.
"""

import glob
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow.parquet as pq
from jinja2 import TemplateError, TemplateSyntaxError
from tokenizers import Tokenizer

from mixer.errors import RecipeError, SourceError
from mixer.readers.streams import lines, open_stream

Turns = list[dict[str, str]]
_ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}
_PROMPTS, _ANSWERS = ("prompt", "instruction", "question"), ("response", "completion", "output", "answer")
_KNOWN = "messages, conversations, or a prompt (instruction, question) with a response (completion, output, answer)"


class Chats:
    """Renders and encodes conversations with a model's tokenizer.

    Args:
        folder: The model's, with its tokenizer and, unless one is given, its chat template.
        template: A chat template (Jinja).

    Raises:
        RecipeError: The tokenizer cannot be read, or there is no template.
    """

    def __init__(self, folder: Path, *, template: str | None) -> None:
        from transformers import AutoTokenizer

        self._backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._backend.no_truncation()
        self._renderer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        if template is not None:
            self._renderer.chat_template = template
        if not self._renderer.chat_template:
            raise RecipeError(
                f"train.instruct.template: got none, and {folder} has none, expected a chat template",
                hint="name a file with `template`",
            )
        added = self._backend.get_added_tokens_decoder().values()
        self._control = [token.content for token in added if token.special]

    def encode(self, turns: Turns) -> tuple[np.ndarray, np.ndarray] | str:
        """Ids, and which of them are answers, bool; or why the conversation is left out.

        Raises:
            RecipeError: The template is no Jinja.
        """
        if any(control in turn["content"] for turn in turns for control in self._control):
            return "holds a control token"
        try:
            return self._encoded(turns)
        except TemplateSyntaxError as error:
            raise RecipeError(
                f"train.instruct.template: got a mistake in line {error.lineno} ({error.message}), expected Jinja",
                hint="correct the file, or leave `template` out to use the model's own",
            ) from error
        except TemplateError:
            # Some templates know no system turn, others no two turns of one role after another.
            return "is refused by the chat template"

    def _encoded(self, turns: Turns) -> tuple[np.ndarray, np.ndarray] | str:
        pieces: list[tuple[str, bool]] = []
        done = ""
        for number, turn in enumerate(turns):
            if turn["role"] == "assistant":
                before = self._rendered(turns[:number], asks=True)
                after = self._rendered(turns[: number + 1], asks=False)
                if not (before.startswith(done) and after.startswith(before)):
                    return "is rendered otherwise with its answers than without"
                answer = after[len(before) :]
                # What the template writes after the end of a turn is nobody's answer.
                told = answer.rstrip()
                pieces += [(before[len(done) :], False), (told, True)]
                done = before + told
        if not pieces:
            return "has no answer"
        ids = [self._backend.encode(text, add_special_tokens=False).ids for text, _ in pieces]
        answers = np.repeat([is_answer for _, is_answer in pieces], [len(piece) for piece in ids])
        return np.concatenate([np.array(piece, np.int32) for piece in ids]), answers

    def _rendered(self, turns: Turns, *, asks: bool) -> str:
        found: str = self._renderer.apply_chat_template(turns, tokenize=False, add_generation_prompt=asks)
        return found


def files_of(patterns: str | Sequence[str], base: Path) -> list[Path]:
    """Files of conversations in name order.

    Raises:
        SourceError: A pattern matches none.
    """
    found: set[Path] = set()
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        matching = glob.glob(str(base / pattern), recursive=True)  # noqa: PTH207 - Path's takes no absolute pattern
        if not matching:
            raise SourceError(
                f"train.instruct.path: got {pattern!r}, which matches no file, expected conversations",
                hint="paths are relative to the recipe's folder; `--base` names another",
            )
        found |= {Path(path) for path in matching}
    return sorted(found)


def rows_of(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the name and the content of each row of a file, `.parquet` or JSON lines."""
    if path.suffix == ".parquet":
        with pq.ParquetFile(path) as table:
            number = 0
            for batch in table.iter_batches(batch_size=1000):
                for row in batch.to_pylist():
                    yield f"{path.name}#{number}", row
                    number += 1
        return
    with open_stream(str(path)) as stream:
        for number, line in enumerate(lines(stream)):
            try:
                yield f"{path.name}#{number}", orjson.loads(line or b"")
            except orjson.JSONDecodeError as error:
                raise SourceError(
                    f"{path}:{number + 1}: got bad JSON ({error.msg}), expected a conversation", hint="correct the line"
                ) from error


def turns_of(row: Any, name: str) -> Turns:
    """The turns of a conversation, whatever of the usual layouts it has.

    Raises:
        SourceError: It has none of them.
    """
    if isinstance(row, Mapping):
        listed = row.get("messages") or row.get("conversations")
        if isinstance(listed, list):
            turns = [_turn(turn) for turn in listed]
            if all(turns):
                return [turn for turn in turns if turn]
        prompt = next((row[key] for key in _PROMPTS if isinstance(row.get(key), str)), None)
        answer = next((row[key] for key in _ANSWERS if isinstance(row.get(key), str)), None)
        if prompt is not None and answer is not None:
            asked = "\n\n".join(part for part in (prompt, row.get("input")) if isinstance(part, str) and part)
            return [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    got = ", ".join(map(str, row)) if isinstance(row, Mapping) else type(row).__name__
    raise SourceError(f"{name}: got a row with {got}, expected {_KNOWN}", hint="rename the columns")


def _turn(turn: Any) -> dict[str, str] | None:
    if not isinstance(turn, Mapping):
        return None
    role, content = turn.get("role") or turn.get("from"), turn.get("content", turn.get("value"))
    if not isinstance(role, str) or not isinstance(content, str):
        return None
    return {"role": _ROLES.get(role, role), "content": content}


def encode_files(files: Sequence[Path], chats: Chats, folder: Path) -> None:
    """Write `ids.npy` (int32), `answers.npy` (bool), `lengths.npy` and `counts.json` of all conversations.

    Args:
        files: Of conversations.
        chats: Encodes them.
        folder: Where to write, there already.

    Raises:
        SourceError: A row is no conversation, or none is left.
    """
    left_out: Counter[str] = Counter()
    ids, answers = [], []
    for path in files:
        for name, row in rows_of(path):
            found = chats.encode(turns_of(row, name))
            if isinstance(found, str):
                left_out[found] += 1
            else:
                ids.append(found[0])
                answers.append(found[1])
    if not ids:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in left_out.items()) or "no rows"
        raise SourceError(f"train.instruct.path: got {reasons}, expected conversations", hint="look at the files")
    np.save(folder / "ids.npy", np.concatenate(ids))
    np.save(folder / "answers.npy", np.concatenate(answers))
    np.save(folder / "lengths.npy", np.array([len(part) for part in ids], np.int64))
    (folder / "counts.json").write_text(json.dumps({"conversations": len(ids), "left out": dict(left_out)}), "utf-8")
