"""Where a training sequence comes from: documents, their pages, the bytes of their texts; of what a model wrote, how.

A span's bytes are counted in the Document's text, as it lies in `documents/`: `documents` name their page by `id`
(`file#row`) and `url`. Bytes of a token are those that the tokenizer decodes it to; they are held against the text, so
a trace that cannot be right is an error, not an answer.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from tokenizers import pre_tokenizers

from mixer.errors import ShardError, SourceError
from mixer.orders import orders_of
from mixer.recipe.recipe import Recipe
from mixer.shard import Sequences, index_of
from mixer.table import scan
from mixer.tokens import Encoder

_BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


@dataclass(frozen=True, slots=True)
class Origin:
    """A piece of a document in a sequence.

    Args:
        offset: First place within the sequence.
        length: Tokens.
        document: Its id.
        url: Its address, if its source says so.
        metadata: What the document carries.
        start: First token within the document, its BOS included.
        begin: First byte within the document's text, and end after the last; None of a document that is token ids
            alone, whose `metadata` say at which token of its file it begins.
        text: The piece.
        scores: Score -> its columns.
        synthesis: For text that a model wrote: candidates with evidence and verdicts, and the raw answers.
    """

    offset: int
    length: int
    document: str
    url: str | None
    metadata: Mapping[str, Any]
    start: int
    begin: int | None
    end: int | None
    text: str
    scores: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    synthesis: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Token:
    """The one token that was asked about.

    Args:
        document: Whose it is.
        start: Which token of the document, its BOS included.
        begin: First byte within the document's text, and end after the last; equal for a control token, and None of a
            document that is token ids alone.
        text: What it spells.
    """

    document: str
    start: int
    begin: int | None
    end: int | None
    text: str


@dataclass(frozen=True, slots=True)
class Trace:
    """One training sequence.

    Args:
        stage: The stage, or None where a shard was asked about.
        index: Place within it.
        source: Whose sequence it is.
        sequence: Its number within the source.
        origins: What fills it, in order.
        place: Which of its tokens was asked about, where one was.
        token: What that one is, if it is not padding.
    """

    stage: str | None
    index: int | None
    source: str
    sequence: int
    origins: Sequence[Origin]
    place: int | None = None
    token: Token | None = None


def trace_stage(
    run: Path, recipe: Recipe, encoder: Encoder, *, stage: str, index: int, training: str | None = None
) -> Trace:
    """What the `index`-th sequence of a stage holds, in the order that was built or that a training took.

    Raises:
        SourceError: There is no such training, stage or place.
    """
    orders = orders_of(run, training)
    if stage not in orders:
        hint = "a later round is there once it is planned"
        raise SourceError(f"--stage: got {stage!r}, expected one of {', '.join(orders)}", hint=hint)
    order = np.load(orders[stage], mmap_mode="r")
    if not 0 <= index < len(order):
        raise SourceError(f"--index: got {index:,}, expected 0 to {len(order) - 1:,}", hint="stages count from 0")
    source, sequence = map(int, order[index])
    name = list(recipe.sources)[source]
    return Trace(stage, index, name, sequence, list(origins(run, encoder, name, sequence)))


def trace_shard(run: Path, encoder: Encoder, *, shard: str, offset: int) -> Trace:
    """What the sequence around a token of a shard holds, and where the token is from.

    Args:
        run: The Run.
        encoder: Its tokenizer.
        shard: `source/00000.bin`.
        offset: Which token of the shard.

    Raises:
        SourceError: There is no such shard or token.
    """
    source, _, file = shard.partition("/")
    found = [each for each in index_of(run / "shards" / source)["shards"] if each["file"] == file]
    if not found:
        raise SourceError(f"--shard: got {shard!r}, expected such as `{source}/00000.bin`", hint="look into RUN/shards")
    length = index_of(run / "shards" / source)["sequence_length"]
    if not 0 <= offset < found[0]["sequences"] * length:
        told = f"--offset: got {offset:,}, expected 0 to {found[0]['sequences'] * length - 1:,}"
        raise SourceError(told, hint="tokens of a shard count from 0")
    sequence = found[0]["first_sequence"] + offset // length
    found_there = Trace(None, None, source, sequence, list(origins(run, encoder, source, sequence)))
    return asked(run, encoder, found_there, offset % length)


def asked(run: Path, encoder: Encoder, found: Trace, place: int) -> Trace:
    """A trace that says what one of the sequence's tokens is."""
    return replace(found, place=place, token=_token(run, encoder, found, place))


def _token(run: Path, encoder: Encoder, found: Trace, place: int) -> Token | None:
    ends = pl.col("offset") + pl.col("length")
    spans = spans_of(run, found.source, found.sequence).filter(pl.col("offset") <= place, ends > place).to_dicts()
    if not spans:
        return None
    row = document_of(run, found.source, spans[0]["document"])
    start = spans[0]["document_start"] + place - spans[0]["offset"]
    packed = Sequences(run / "shards" / found.source)[found.sequence][place : place + 1]
    begin, end, text = _piece(encoder, row, packed, start, f"{run}/shards/{found.source}: sequence {found.sequence:,}")
    return Token(row["id"], start, begin, end, text)


def origins(run: Path, encoder: Encoder, source: str, sequence: int) -> Iterator[Origin]:
    """Yield the pieces that fill a sequence, in order.

    Raises:
        ShardError: A piece is not what its document's tokens say.
    """
    packed = Sequences(run / "shards" / source)[sequence]
    for span in spans_of(run, source, sequence).iter_rows(named=True):
        row = document_of(run, source, span["document"])
        ids = packed[span["offset"] : span["offset"] + span["length"]]
        where = f"{run}/shards/{source}: sequence {sequence:,}"
        begin, end, text = _piece(encoder, row, ids, span["document_start"], where)
        metadata = json.loads(row["metadata"])
        yield Origin(
            offset=span["offset"],
            length=span["length"],
            document=row["id"],
            url=row["url"],
            metadata=metadata,
            start=span["document_start"],
            begin=begin,
            end=end,
            text=text,
            scores=scores_of_document(run, source, row["id"]),
            synthesis=synthesis_of(run, source, metadata),
        )


def _piece(
    encoder: Encoder, row: Mapping[str, Any], packed: np.ndarray, start: int, where: str
) -> tuple[int | None, int | None, str]:
    """The bytes of a document's text that some tokens from `start` on stand for, and what they spell."""
    if not row["text"]:
        return None, None, encoder.backend.decode(packed.tolist())
    [ids] = encoder.encode([row["text"]])
    if not np.array_equal(ids[start : start + len(packed)], packed):
        raise ShardError(
            f"{where}: got other tokens than document {row['id']!r} has",
            hint="the Run was built with another tokenizer or version; build it again",
        )
    begin, end = bytes_of(encoder, row["text"], ids, start, len(packed))
    return begin, end, row["text"].encode("utf-8", "replace")[begin:end].decode("utf-8", "replace")


def spans_of(run: Path, source: str, sequence: int) -> pl.DataFrame:
    """The spans of one sequence, by offset.

    Raises:
        ShardError: The source has no such sequence.
    """
    for shard in index_of(run / "shards" / source)["shards"]:
        if shard["first_sequence"] <= sequence < shard["first_sequence"] + shard["sequences"]:
            table = scan(run / "shards" / source / shard["spans"]).filter(pl.col("sequence") == sequence)
            return table.sort("offset").collect()
    raise ShardError(f"{run}/shards/{source}: got no sequence {sequence:,}, expected one", hint="run mixer build again")


def document_of(run: Path, source: str, row: int) -> dict[str, Any]:
    """The document at a row of a source's tables, counted through their files in name order."""
    for table in sorted((run / "documents" / source).glob("*.parquet")):
        rows = scan(table).select(pl.len()).collect().item()
        if row < rows:
            return scan(table).slice(row, 1).collect().row(0, named=True)
        row -= rows
    raise ShardError(f"{run}/documents/{source}: got fewer rows than its shards name", hint="run mixer build again")


def bytes_of(encoder: Encoder, text: str, ids: np.ndarray, start: int, length: int) -> tuple[int, int]:
    """The bytes of a text that some of its tokens stand for, control tokens standing for none.

    Args:
        encoder: The tokenizer.
        text: A document.
        ids: All its tokens, framed.
        start: The first token asked about.
        length: How many.

    Raises:
        ShardError: The tokens do not spell the text, byte for byte.
    """
    head, tail = int(encoder.bos is not None), int(encoder.eos is not None)
    inner = ids[head : len(ids) - tail]
    ends = np.cumsum([0, *[0] * head, *_byte_sizes(encoder, inner, text), *[0] * tail])
    return int(ends[start]), int(ends[start + length])


def _byte_sizes(encoder: Encoder, ids: np.ndarray, text: str) -> list[int]:
    """Bytes that each token stands for: a character of a byte-level vocabulary is one byte."""
    added = encoder.backend.get_added_tokens_decoder()
    tokens = [_as_bytes(added[i].content) if i in added else encoder.backend.id_to_token(i) or "" for i in ids.tolist()]
    # Their number alone would not do: what a normalizer takes in one place, it may add in another.
    if "".join(tokens) != _as_bytes(text):
        raise ShardError(
            f"document of {len(text):,} characters: got tokens that spell another text, expected its own bytes",
            hint="trace reads byte-level tokenizers that leave the text as it is",
        )
    return [len(token) for token in tokens]


def _as_bytes(text: str) -> str:
    """A text as a byte-level vocabulary writes it, a character a byte."""
    return "".join(piece for piece, _ in _BYTES.pre_tokenize_str(text))


def scores_of_document(run: Path, source: str, document: str) -> dict[str, dict[str, Any]]:
    """Score -> its columns, of one document."""
    found = {}
    for path in sorted((run / "scores").glob(f"*/{source}.parquet")):
        rows = scan(path).filter(pl.col("id") == document).collect().to_dicts()
        if rows:
            found[path.parent.name] = {key: value for key, value in rows[0].items() if key != "id"}
    return found


def synthesis_of(run: Path, source: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """How a model wrote a document: its candidates, and each answer with the prompt that it answers."""
    keys = [key for key in str(metadata.get("log_keys", "")).split(",") if key]
    folder = run / "synth" / source
    if not keys or not (folder / "candidates.parquet").is_file():
        return {}
    candidates = scan(folder / "candidates.parquet").filter(pl.col("page") == metadata["page"], pl.col("accepted"))
    own = [row for row in candidates.collect().to_dicts() if set(row["keys"]) <= set(keys)]
    return {"candidates": own, "responses": list(_responses(folder / "responses", set(keys)))}


def _responses(folder: Path, keys: set[str]) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob("*.jsonl")):
        with path.open("rb") as lines:
            for line in lines:
                record = json.loads(line)
                if record["key"] in keys:
                    yield record
