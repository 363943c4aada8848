"""What training runs ended with: recorded by others in a file, or by `mixer sweep` in a table that survives a kill."""

import csv
import io
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixer.errors import SourceError
from mixer.run import digest

_MOST_TOLD = 10
_FORM = 'a line such as {"mixture": {"web": 0.7, "qa": 0.3}, "tokens": 2000000, "seed": 0, "losses": {"general": 2.9}}'


@dataclass(frozen=True, slots=True)
class Result:
    """Losses after one run.

    Args:
        mixture: Source -> fraction of the tokens; they sum to one. Empty for the base model.
        tokens: What it was trained on; 0 is the base model as it was.
        seed: Tells runs of one mixture apart.
        losses: Evaluation slice -> loss, above zero, in nats a token or bits a byte.
    """

    mixture: Mapping[str, float]
    tokens: int
    seed: int
    losses: Mapping[str, float]

    @property
    def key(self) -> str:
        """Stands for the run, whatever it ended with."""
        return key_of(self.mixture, self.tokens, self.seed)


def key_of(mixture: Mapping[str, float], tokens: int, seed: int) -> str:
    """Stands for a run: equal mixtures, to six decimals, in any order."""
    parts = {name: round(weight, 6) for name, weight in mixture.items() if round(weight, 6)}
    return digest([parts if tokens else {}, tokens, seed if tokens else 0])


def read(path: Path, *, sources: Sequence[str], slices: Sequence[str], tokens: int) -> tuple[Result, ...]:
    """The runs of a file of losses: JSON lines, or CSV with columns `mixture.SOURCE`, `loss.SLICE`, `tokens`, `seed`.

    Args:
        path: `.jsonl` or `.csv`.
        sources: Those that mixtures may hold; weights are on any scale, an absent source has none.
        slices: Those whose losses every run must have; others may be there.
        tokens: What a run without `tokens` was trained on.

    Raises:
        SourceError: The file cannot be read, or a line is not such a run; names the first ten.
    """
    try:
        text = path.read_text("utf-8")
        rows = _csv_rows(text) if path.suffix == ".csv" else _json_rows(text)
        numbered = list(rows)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{path}: got {error}, expected a file of losses", hint=f"JSON lines: {_FORM}") from None
    makers = {str(row["made_by"]) for _, row in numbered if isinstance(row, dict) and "made_by" in row}
    results, problems = [], []
    if len(makers) > 1:
        problems.append(f"{path}: got results of {len(makers)} models or settings, expected those of one (`made_by`)")
    for line, row in numbered:
        try:
            results.append(_result(row, sources, slices, tokens))
        except ValueError as error:
            problems.append(f"{path}:{line}: {error}")
    if problems or not results:
        told = "\n".join(problems[:_MOST_TOLD]) or f"{path}: got no runs, expected one a line"
        raise SourceError(told, hint=f"JSON lines: {_FORM}; CSV: columns mixture.SOURCE, loss.SLICE, tokens, seed")
    return tuple(results)


def _json_rows(text: str) -> Iterator[tuple[int, Any]]:
    for line, content in enumerate(text.splitlines(), start=1):
        if content.strip():
            try:
                yield line, json.loads(content)
            except ValueError:
                yield line, content


def _csv_rows(text: str) -> Iterator[tuple[int, Any]]:
    reader = csv.DictReader(io.StringIO(text))
    for row in reader:
        parsed: dict[str, Any] = {"mixture": {}, "losses": {}}
        for column, value in row.items():
            group, _, name = (column or "").partition(".")
            if value in (None, ""):
                continue
            if group in ("mixture", "loss") and name:
                parsed["losses" if group == "loss" else group][name] = _number(value)
            else:
                parsed[column or "?"] = _number(value)
        yield reader.line_num, parsed


def _number(value: Any) -> Any:
    try:
        return int(value)
    except (TypeError, ValueError):
        pass
    try:
        return float(value)
    except (TypeError, ValueError):
        return value


def _result(row: Any, sources: Sequence[str], slices: Sequence[str], tokens: int) -> Result:
    if not isinstance(row, dict) or not isinstance(row.get("losses"), dict):
        raise ValueError("got no run, expected `mixture` and `losses`")
    if unknown := sorted(str(name) for name in set(row) - {"mixture", "tokens", "seed", "losses", "made_by"}):
        raise ValueError(f"got {', '.join(unknown)}, expected mixture, tokens, seed and losses")
    tokens, seed = row.get("tokens", tokens), row.get("seed", 0)
    if not all(isinstance(value, int) and not isinstance(value, bool) and value >= 0 for value in (tokens, seed)):
        raise ValueError(f"tokens, seed: got {tokens!r}, {seed!r}, expected whole numbers, 0 or more")
    losses = {name: _positive(f"loss of `{name}`", value) for name, value in row["losses"].items()}
    if missing := [name for name in slices if name not in losses]:
        raise ValueError(f"got losses of {', '.join(losses) or 'nothing'}, expected `{missing[0]}` too")
    return Result(_mixture(row.get("mixture", {}), sources) if tokens else {}, tokens, seed, losses)


def _mixture(mixture: Any, sources: Sequence[str]) -> dict[str, float]:
    if not isinstance(mixture, dict) or not mixture:
        raise ValueError("mixture: got none, expected weights by source")
    if unknown := [name for name in mixture if name not in sources]:
        raise ValueError(f"mixture: got `{unknown[0]}`, expected sources of the stage: {', '.join(sources)}")
    weights = {name: 0.0 if mixture.get(name, 0) == 0 else _positive(name, mixture[name]) for name in sources}
    total = sum(weights.values())
    if not total:
        raise ValueError("mixture: got only zeros, expected weights by source")
    return {name: weight / total for name, weight in weights.items()}


def _positive(what: str, value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value) or value <= 0:
        raise ValueError(f"{what}: got {value!r}, expected a number above 0")
    return float(value)


class Table:
    """A file of results that grows by whole lines, each on disk before the next run starts.

    Args:
        path: JSON lines; made at the first result.
        made_by: Stands for what trains and evaluates; results of another one stay in the file and do not count.
        sources: Those of the stage.
        slices: Those that a result must have to count.

    Raises:
        SourceError: A line other than a torn last one is damaged.
    """

    def __init__(self, path: Path, *, made_by: str, sources: Sequence[str], slices: Sequence[str]) -> None:
        self._path, self._made_by = path, made_by
        self.slices = tuple(slices)
        self._whole = 0
        self.results: dict[str, Result] = {}
        # A kill while a line is written leaves it without its end: that run is not done.
        for number, line in enumerate(_lines(path), start=1):
            self._whole += len(line)
            try:
                row = json.loads(line)
                result = _result(row, sources, (), 0)
                # A slice that was asked for later makes the run due again.
                if row["made_by"] == made_by and result.losses.keys() >= set(slices):
                    self.results[result.key] = result
            except (ValueError, KeyError, TypeError) as error:
                told = f"{path}:{number}: got a damaged line ({error}), expected a result"
                raise SourceError(told, hint="remove the line; its run is trained again") from None

    def add(self, result: Result) -> None:
        """Append a result and wait until it is on disk."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        row = {
            "losses": dict(result.losses),
            "made_by": self._made_by,
            "mixture": dict(result.mixture),
            "seed": result.seed,
            "tokens": result.tokens,
        }
        line = (json.dumps(row, sort_keys=True) + "\n").encode()
        with self._path.open("ab") as file:
            file.truncate(self._whole)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self._whole += len(line)
        self.results[result.key] = result


def _lines(path: Path) -> list[bytes]:
    content = path.read_bytes() if path.is_file() else b""
    return [line for line in content.splitlines(keepends=True) if line.endswith(b"\n")]
