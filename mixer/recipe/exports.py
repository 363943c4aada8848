"""What a recipe may ask to be written for other trainers."""

from typing import Annotated, Literal, Self

from pydantic import Field, StrictInt, model_validator

from mixer.format_names import FormatName
from mixer.recipe.section import Count, Section

FOLDERS = ("mds", "litdata", "nanotron", "torchtitan")
"""Formats of which a set is a folder."""
_PLACED = ("megatron", "nanotron")
_TABLES = ("parquet", "arrow")
_IN_STEPS = ("nanotron", "parquet", "arrow", "jsonl")
_OFFSETS_OF_32_BITS = ("mds", "litdata")
_MOST_BYTES = 2**32 - 1
_CUT = ("mds", "litdata", "olmo", "parquet", "arrow", "webdataset", "llmc", "jsonl")


class Export(Section):
    """The training mixture in the format of another trainer, with the configuration that this trainer needs."""

    format: FormatName
    mode: Literal["premixed", "blended"] = "premixed"
    """`premixed` is the training order, stage after stage; `blended` is a data set a source for the trainer to mix."""
    content: Literal["tokens", "text"] | None = None
    """Of `parquet` and `arrow`: packed ids (the default) or whole documents. `jsonl` is text, the others are ids."""
    shuffle_seed: Annotated[StrictInt, Field(ge=0, lt=2**32)] | None = 1234
    """Of `megatron` and `nanotron`, which always shuffle: rows are laid out so that the shuffle by this seed restores
    the training order. `null` lays them out in training order."""
    file_bytes: Count | None = None
    """Most bytes of a file, where the format has several. Rows of `parquet`, `arrow` and `webdataset` are counted
    before compression and without what names them; text goes on to the end of a document. Default: what its trainer
    reads well."""

    batch_sequences: Count = 1
    """Sequences that the trainer takes a step, where its configuration counts steps: nanotron, TRL, LLaMA-Factory,
    Axolotl; and OLMo-core's `blended`, which fills whole batches."""

    @model_validator(mode="after")
    def _has_effect(self) -> Self:
        # A Run's recipe has every default written out, so a default is never refused.
        default = {name: field.default for name, field in type(self).model_fields.items()}
        if self.content is not None and self.format not in _TABLES:
            raise ValueError(f"`content` for parquet or arrow alone; {self.format} knows one content")
        if self.shuffle_seed != default["shuffle_seed"] and (self.format not in _PLACED or self.mode == "blended"):
            raise ValueError(
                "`shuffle_seed` for premixed megatron or nanotron alone, whose shuffle cannot be turned off"
            )
        is_whole = self.mode == "blended" and self.format in ("olmo", "jsonl")
        if self.file_bytes is not None and (self.format not in _CUT or is_whole):
            raise ValueError(f"no `file_bytes`: a set of {self.format} is one file")
        if self.file_bytes is not None and self.format in _OFFSETS_OF_32_BITS and self.file_bytes > _MOST_BYTES:
            raise ValueError(f"`file_bytes` of at most {_MOST_BYTES}: {self.format} counts them in 32 bits")
        steps = self.format in _IN_STEPS or (self.format, self.mode) == ("olmo", "blended")
        if self.batch_sequences != default["batch_sequences"] and not steps:
            raise ValueError(f"no `batch_sequences`: the configuration for {self.format} does not count steps")
        if self.format == "llmc" and self.mode == "blended":
            raise ValueError("`mode: premixed`: llmc has no weights, it reads one stream")
        if self.format == "arrow" and self.mode == "blended":
            raise ValueError("`mode: premixed`: who reads arrow puts sets one after the other; parquet has weights")
        return self

    @property
    def is_text(self) -> bool:
        """Whether documents are written, not ids."""
        return self.format == "jsonl" or self.content == "text"

    @property
    def folder(self) -> str:
        """Its folder's name below `exports/`."""
        blended = "-blended" if self.mode == "blended" else ""
        return f"{self.format}{blended}{'-text' if self.content == 'text' else ''}"
