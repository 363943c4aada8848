"""The configuration beside an export's files: rendered, kept where somebody edited it, and the tokenizer with it."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xxhash

from mixer.errors import ShardError
from mixer.exports import fragments
from mixer.exports.folder import remove
from mixer.exports.target import Told
from mixer.recipe.exports import Export
from mixer.recipe.recipe import TokenizerSpec
from mixer.recipe.section import PACKAGED
from mixer.run import write_text
from mixer.steps import Say

CONFIG = "config/"
TOKENIZER = f"{CONFIG}tokenizer/"


def tokenizer_texts(spec: TokenizerSpec, base: Path, store: Path, digest: str, say: Say) -> dict[str, str]:
    """A tokenizer's files as transformers reads them: name -> text; none where it cannot be found.

    Args:
        spec: The recipe's `tokenizer`.
        base: Folder that a relative path is relative to.
        store: Where the packaged tokenizer is kept.
        digest: Of the tokenizer that the shards were made with.
        say: Takes a line for people.

    Raises:
        ShardError: The tokenizer that is found is another one.
    """
    from mixer.tokens import files, load

    if not _is_here(spec, base):
        say(f"note: no files of the tokenizer {spec.path} are exported: --base names where its recipe lies")
        return {}
    path, config = files(spec, base, store)
    encoder = load(spec, base, store)
    if encoder.digest != digest:
        told = f"tokenizer.path: got another {spec.path!r} than the Run was built with, or another `tokenizers`"
        raise ShardError(told, hint="build the Run again, or name with --base where its recipe lies")
    frame = {"bos_token": encoder.bos, "eos_token": encoder.eos}
    named = {key: encoder.backend.id_to_token(i) for key, i in frame.items() if i is not None}
    # transformers finds a tokenizer that has no model beside it by its class alone.
    config = {"tokenizer_class": "PreTrainedTokenizerFast"} | config | named
    config.pop("auto_map", None)
    return {"tokenizer.json": path.read_text("utf-8"), "tokenizer_config.json": json.dumps(config, indent=1) + "\n"}


def _is_here(spec: TokenizerSpec, base: Path) -> bool:
    """Whether a tokenizer can be had without the network: an export does not wait for one."""
    from huggingface_hub import try_to_load_from_cache

    if spec.path == PACKAGED or (base / spec.path).exists():
        return True
    try:
        return isinstance(try_to_load_from_cache(spec.path, "tokenizer.json", revision=spec.revision), str)
    except ValueError:  # no name that a hub could have
        return False


def tokenizer_beside(target: Path) -> dict[str, str]:
    """The tokenizer's files that stand beside an export."""
    return {path.name: path.read_text("utf-8") for path in sorted((target / TOKENIZER).glob("*.json"))}


def is_current(target: Path, before: Told, record: Told) -> bool:
    """Whether an earlier export's configuration is what would be written, and all there."""
    there = all((target / name).is_file() for name in before["files"] if name.startswith(CONFIG))
    return there and before.get("configuration") == record["configuration"]


def write(
    target: Path, wanted: Export, record: dict[str, Any], tokenizer: Mapping[str, str], *, before: Told | None, say: Say
) -> dict[str, dict[str, Any]]:
    """Write the configuration; name -> bytes and hash of what we would have it be.

    A file that somebody edited stays, and what it would be stands beside it, `NAME.new`.
    """
    if tokenizer:
        record["tokenizer_sha256"] = hashlib.sha256(tokenizer["tokenizer.json"].encode()).hexdigest()
    record["tokenizer_beside"] = bool(tokenizer)
    texts = {f"{CONFIG}{name}": text for name, text in fragments.render(wanted, record).items()}
    texts |= {f"{TOKENIZER}{name}": text for name, text in tokenizer.items()}
    if before is not None:
        clear(target, before, but=texts)
    found = {}
    for name, text in texts.items():
        path, encoded = target / name, text.encode()
        edited = path.is_file() and path.read_bytes() != encoded and not _is_ours(path, name, before)
        if edited:
            say(f"keep {path}: it was edited; {path.name}.new is what it would be")
        write_text(path.with_name(f"{path.name}.new") if edited else path, text)
        found[name] = {"bytes": len(encoded), "xxh3_128": xxhash.xxh3_128_hexdigest(encoded)}
    return found


def clear(target: Path, before: Told, *, but: Mapping[str, str] | None = None) -> None:
    """Remove the configuration of an earlier export, but what somebody edited and what is named."""
    for name in before["files"]:
        if name.startswith(CONFIG) and name not in (but or ()) and _is_ours(target / name, name, before):
            remove(target, name)


def _is_ours(path: Path, name: str, before: Told | None) -> bool:
    """Whether a file is as an earlier export wrote it."""
    known = (before or {"files": {}})["files"].get(name)
    return known is not None and path.is_file() and xxhash.xxh3_128_hexdigest(path.read_bytes()) == known["xxh3_128"]
