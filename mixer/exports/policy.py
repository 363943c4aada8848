"""What each format promises and asks for: where documents end, which tokens frame them, what to turn off."""

from dataclasses import dataclass
from importlib import import_module
from typing import cast

from mixer.exports.target import Format


@dataclass(frozen=True, slots=True)
class Policy:
    """One format.

    Args:
        trainer: Who reads it.
        boundaries: Where its files say that a document ends.
        frame: What it does about end-of-text tokens; those between documents are in the sequences already.
        order: What keeps the training order.
        switches: What to turn off, in the trainer's words.
        length: The trainer's sequence length, from ours.
    """

    trainer: str
    boundaries: str
    frame: str
    order: str
    switches: tuple[str, ...]
    length: str = "L"


_AS_IS = "nothing is added: each document ends with the recipe's EOS inside its row"
_EOS = "the end-of-text token in the row"
POLICIES = {
    "megatron": Policy(
        "Megatron-LM",
        "premixed, the end-of-text token; blended, the `.idx`, an entry a document",
        f"{_AS_IS}; premixed, one more entry of padding lends the last window its next token",
        "premixed: entries are laid out so that Megatron's own shuffle by `shuffle_seed` restores the order",
        ("--seed SHUFFLE_SEED", "--train-samples as given: more would start a second, differently shuffled epoch"),
    ),
    "mds": Policy(
        "llm-foundry (MosaicML streaming)",
        _EOS,
        _AS_IS,
        "shuffle off and one canonical node",
        ("shuffle: false", "num_canonical_nodes: 1"),
    ),
    "litdata": Policy(
        "litgpt (litdata)",
        _EOS,
        _AS_IS,
        "shuffle off, one process and at most one worker; several deal chunks out among them",
        ("StreamingDataset(shuffle=False)", "num_workers: at most 1"),
        "L - 1 (block_size L)",
    ),
    "olmo": Policy(
        "OLMo-core",
        "`.csv.gz` beside each array: a line a document, cut at the end of a row",
        _AS_IS,
        "shuffle off",
        ("NumpyDataLoaderConfig: call reshuffle with shuffle=False",),
    ),
    "nanotron": Policy(
        "nanotron (datatrove)",
        "`.ds.index`: the end of each document, cut at the end of a row",
        _AS_IS,
        "premixed: rows are laid out so that nanotron's own shuffle by `shuffle_seed` restores the order of a stage",
        ("data.seed: SHUFFLE_SEED",),
        "L - 1 (windows of L that do not overlap)",
    ),
    "parquet": Policy(
        "TRL, `datasets`",
        "`seq_lengths`: the lengths of a row's documents",
        _AS_IS,
        "a sequential sampler",
        ("dataset_kwargs: {skip_prepare_dataset: true}", "a sampler that does not shuffle (see config/trl.py)"),
    ),
    "arrow": Policy(
        "LLaMA-Factory, Axolotl",
        _EOS,
        f"{_AS_IS}; padding has `attention_mask` 0 and label -100",
        "a sequential sampler",
        ("disable_shuffling: true", "shuffle_merged_datasets: false", "packing: false"),
    ),
    "webdataset": Policy(
        "WebDataset",
        "`lengths` in the sample's JSON",
        _AS_IS,
        "no shuffle, one worker; several deal shards out among them",
        ("shardshuffle=False", "no .shuffle() in the pipeline"),
    ),
    "torchtitan": Policy(
        "torchtitan",
        "`document_offsets.npy`, cut at the end of a row",
        _AS_IS,
        "shuffle off",
        ("GrainDataLoader.Config(shuffle=False)",),
    ),
    "llmc": Policy(
        "llm.c, modded-nanogpt",
        "the end-of-text token before a document",
        "each file opens with one end-of-text token, so that every document has one before it; none is doubled",
        "files in name order, no shuffle",
        ("should_shuffle 0 (llm.c's default for the training loader is 1)",),
    ),
    "jsonl": Policy(
        "LLaMA-Factory, Axolotl, torchtitan",
        "the line",
        "no token at all: these trainers add their own end of text",
        "lines in order of first tokens; these trainers pack anew",
        ("disable_shuffling: true", "shuffle_merged_datasets: false"),
    ),
}


def module(name: str) -> Format:
    """The format of a name."""
    return cast(Format, import_module(f"mixer.exports.{name}"))
