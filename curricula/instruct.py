"""The stage of conversations: one more training by the same loop, from the model that the stages before have made.

LLaMA Pro trains all blocks on instructions after its expansion; Me-LLaMA makes its chat models the same way. Here a
plain model is tuned whole, or the parameters that patterns name.
"""

from itertools import islice
from pathlib import Path

import numpy as np

from curricula.chats import Chats, encode_files, files_of, rows_of, turns_of
from curricula.job import Job, identity_of
from curricula.loader import Loader, Track
from curricula.methods.choose import method_of
from curricula.model import fingerprint
from curricula.order import seed_of
from curricula.rows import Batch, Row, row_by_row, starts_of
from curricula.schedule import Schedule, leg_of
from mixer.errors import RecipeError
from mixer.pack import best_fit
from mixer.recipe.methods import FreezeMethod, PlainMethod
from mixer.recipe.train import Instruct, Train
from mixer.run import digest, read_json, sha256, staged
from mixer.steps import Say

_STAGE = "instruct"
_ALL = ("*",)


class ChatRows:
    """Conversations, packed: each piece once, none cut that fits a sequence.

    Args:
        folder: As `encode_files` left it.
        sequence_length: Tokens of each row.
        document_mask: Whether rows say where conversations begin.
    """

    def __init__(self, folder: Path, *, sequence_length: int, document_mask: bool = True) -> None:
        self._ids = np.load(folder / "ids.npy", mmap_mode="r")
        self._answers = np.load(folder / "answers.npy", mmap_mode="r")
        lengths = np.load(folder / "lengths.npy")
        self._begins = np.cumsum(lengths) - lengths
        self._packed = best_fit(lengths, sequence_length)
        self._first = np.searchsorted(self._packed.sequence, np.arange(self._packed.sequences + 1))
        self._length, self._document_mask = sequence_length, document_mask
        self.vocabulary = int(self._ids.max()) + 1
        self.names = (_STAGE,)

    @property
    def sequence_length(self) -> int:
        """Tokens of each row."""
        return self._length

    def count(self, source: int) -> int:
        """How many sequences there are."""
        return self._packed.sequences

    def topic(self, source: int, sequence: int) -> str | None:
        """Conversations have no topic."""
        return None

    def row(self, source: int, sequence: int) -> Row:
        """The packed sequence; of each piece, the predictions of answers count."""
        packed, spans = self._packed, slice(*self._first[sequence : sequence + 2])
        ids, weights = np.zeros(self._length, np.int64), np.zeros(self._length, np.float32)
        offsets, lengths = packed.offset[spans], packed.length[spans]
        starts = self._begins[packed.document[spans]] + packed.document_start[spans]
        for offset, size, start in zip(offsets.tolist(), lengths.tolist(), starts.tolist(), strict=True):
            ids[offset : offset + size] = self._ids[start : start + size]
            weights[offset : offset + size - 1] = self._answers[start + 1 : start + size]
        begins = starts_of(self._length, offsets, lengths) if self._document_mask else np.zeros(1, np.int64)
        return Row(ids, begins, weights, int(lengths.sum()))

    def batch(self, picked: np.ndarray, numbers: np.ndarray) -> Batch:
        """Packed sequences as one batch."""
        return row_by_row(self, picked, numbers)


def check_instruct(train: Train, model: Path, *, base: Path) -> None:
    """Refuse, before anything is trained, conversations that could not be read after it: the first row of each file.

    Args:
        train: The recipe's `train`; without `instruct` there is nothing to refuse.
        model: The base model, whose tokenizer and template the trained one has.
        base: Folder that the recipe's relative paths start from.

    Raises:
        RecipeError: There is no chat template, or it cannot be read.
        SourceError: There are no conversations, or the first of a file is none.
    """
    if train.instruct is None:
        return
    chats = Chats(model, template=_template(train.instruct, base))
    for path in files_of(train.instruct.path, base):
        for name, row in islice(rows_of(path), 1):
            chats.encode(turns_of(row, name))


def instruct_job(run: Path, before: Job, settings: Instruct, *, base: Path, store: Path, say: Say) -> Job:
    """The training on conversations, from the model that another training has made.

    Args:
        run: The Run folder, whose cache keeps what was encoded.
        before: The training before, which has ended.
        settings: `train.instruct`.
        base: Folder that the recipe's relative paths start from.
        store: Where fingerprints of models are kept.
        say: Takes a line for people.

    Raises:
        RecipeError: The model has no chat template and none is given.
        SourceError: There are no conversations.
    """
    model = before.folder / "final"
    template = _template(settings, base)
    files = files_of(settings.path, base)
    key = digest([[sha256(file) for file in files], sha256(model / "tokenizer.json"), template, _own_template(model)])
    folder = run / ".cache" / "chats" / key
    if not folder.is_dir():
        with staged(folder, keep=True) as scratch:
            encode_files(files, Chats(model, template=template), scratch)
    counts = read_json(folder / "counts.json")
    left = "".join(f"; left out: {count:,} ({reason})" for reason, count in counts["left out"].items())
    say(f"instruct: {counts['conversations']:,} conversations{left}")
    length = settings.sequence_length or before.loader.rows.sequence_length
    rows = ChatRows(folder, sequence_length=length, document_mask=before.settings.document_mask)
    track = Track(_STAGE, settings.epochs * rows.count(0), lambda: _order(rows.count(0), settings.epochs, before.seed))
    train = _settings(before.settings, settings)
    leg = leg_of(settings, peak=settings.learning_rate, tokens=track.sequences * length, name="train.instruct")
    schedule = Schedule([leg])
    return Job(
        folder=before.folder.with_name(f"{before.folder.name}-{_STAGE}"),
        base=model,
        settings=train,
        method=method_of(train.method, base=base, seed=seed_of(before.seed, _STAGE)),
        schedule=schedule,
        loader=Loader(rows, [track], per_step=max(1, train.tokens_per_step // length)),
        held_out=[],
        identity=identity_of(train, schedule, seed=before.seed, model=fingerprint(model, store), chats=key),
        seed=before.seed,
    )


def _template(settings: Instruct, base: Path) -> str | None:
    if settings.template is None:
        return None
    path = base / settings.template
    if not path.is_file():
        raise RecipeError(
            f"train.instruct.template: got {settings.template!r}, which is no file, expected a chat template (Jinja)",
            hint="paths are relative to the recipe's folder; `--base` names another",
        )
    return path.read_text("utf-8")


def _own_template(model: Path) -> str:
    file = model / "chat_template.jinja"
    return file.read_text("utf-8") if file.is_file() else str(read_json(model / "tokenizer_config.json"))


def _settings(train: Train, instruct: Instruct) -> Train:
    """The settings of training with those of the stage in their place."""
    method = PlainMethod(kind="plain") if instruct.train == _ALL else FreezeMethod(kind="freeze", train=instruct.train)
    changes = {name: getattr(instruct, name) for name in ("learning_rate", "schedule", "warmup", "start", "cooldown")}
    changes |= {name: getattr(instruct, name) for name in ("hold", "decay", "final")}
    if instruct.tokens_per_step:
        changes["tokens_per_step"] = instruct.tokens_per_step
    return train.model_copy(update=changes | {"method": method, "instruct": None})


def _order(sequences: int, epochs: int, seed: int) -> np.ndarray:
    """(epochs x sequences, 2) int32, another permutation each epoch."""
    order = np.zeros((epochs * sequences, 2), np.int32)
    for epoch in range(epochs):
        draw = np.random.Generator(np.random.PCG64(seed_of(seed, _STAGE, epoch)))
        order[epoch * sequences : (epoch + 1) * sequences, 1] = draw.permutation(sequences)
    return order
