"""Checkpoints: a folder that others load as a model, with what an exact resume needs below `trainer/`.

    step-00000120/ config.json, model.safetensors, tokenizer, ...   in the base model's dtype, as vLLM reads it
                   trainer/state.json         position, tokens, identity, hash of the next step, versions, threads
                   trainer/weights.safetensors    what trains, float32
                   trainer/optimizer.safetensors  the optimizer's moments, float32
                   trainer/method.safetensors     what the method keeps beside the weights
                   trainer/tallies.json       sums of losses since the last line of the metrics

Written under a temporary name, synced and renamed; no pickle. No random generator is saved because none has a state:
what is drawn (dropout) is drawn by a seed that is a hash of the recipe's seed and the position.
"""

import platform
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from curricula.methods.base import Method
from curricula.methods.weights import whole
from curricula.parallel import World
from mixer import __version__
from mixer.errors import CheckpointError
from mixer.run import changed, discard, link, read_json, staged, write_json

_PREFIX = "step-"
TALLIES = Path("trainer", "tallies.json")
"""Sums of losses since the last line of the metrics, in a checkpoint's folder."""
METHOD = Path("trainer", "method.safetensors")
"""What a method keeps, in a checkpoint's folder."""
_TOKENIZER = ("tokenizer*", "special_tokens_map.json", "vocab.*", "merges.txt", "added_tokens.json", "*.jinja")
_LATER = ("order ", "shares of ", "micro_batch", "held_out")
"""Beginnings of facts that a checkpoint may lack."""
AGAIN = "train under another name (`--name`), or remove the folder to begin anew"
"""What to do about a checkpoint that nothing can go on from."""


@dataclass(frozen=True, slots=True)
class State:
    """Where a training stands.

    Args:
        position: Sequences trained on so far; the loader's whole state.
        step: Optimizer steps so far.
        tokens: Tokens seen so far.
    """

    position: int = 0
    step: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Seal:
    """What decides how a training goes on from its state.

    Args:
        next_step: Hash of all that the next step reads; empty at the end, and before an order that is to come.
        identity: What training depends on; a resume with another is refused.
        machine: What rounding depends on; a resume with another is exact no more, and says so.
    """

    next_step: str
    identity: Mapping[str, Any]
    machine: Mapping[str, Any]


def latest(folder: Path) -> Path | None:
    """The newest whole checkpoint of a training; None before the first."""
    found = sorted(path for path in folder.glob(f"{_PREFIX}*") if (path / "trainer" / "state.json").is_file())
    return found[-1] if found else None


def read(checkpoint: Path) -> tuple[State, Seal]:
    """Where the training stood, and what it depended on.

    Raises:
        CheckpointError: `state.json` is not one of ours.
    """
    path = checkpoint / "trainer" / "state.json"
    try:
        value = read_json(path)
    except ValueError as error:
        raise damaged(path, str(error)) from error
    value = value if isinstance(value, dict) else {}
    kinds = (State, Seal)
    missing = [field for kind in kinds for field in kind.__dataclass_fields__ if field not in value]
    if missing:
        raise CheckpointError(
            f"{checkpoint}: got a state without {', '.join(missing)}, expected a checkpoint of mixer train", hint=AGAIN
        )
    state, seal = ({field: value[field] for field in kind.__dataclass_fields__} for kind in kinds)
    return State(**state), Seal(**seal)


def check(checkpoint: Path, state: State, found: Seal, now: Seal) -> str:
    """Refuse a checkpoint of another training; otherwise say what makes a resume inexact, which may be nothing.

    Args:
        checkpoint: For messages.
        state: Where it stands.
        found: What it depended on.
        now: What the training that wants to go on depends on.

    Raises:
        CheckpointError: It is of another plan, order, tokenizer, model or recipe; or the data behind it changed.
    """
    # What was not decided when it was saved, such as the order of a round to come, may be anything now.
    decided = {key: own for key, own in now.identity.items() if key in found.identity or not key.startswith(_LATER)}
    if told := changed(found.identity, decided):
        raise CheckpointError(f"{checkpoint}: got a checkpoint of another training ({told})", hint=AGAIN)
    if found.next_step and found.next_step != now.next_step:
        raise CheckpointError(
            f"{checkpoint}: got other tokens at position {state.position:,} than when it was saved, expected the same",
            hint=f"the Run's shards or order have changed; {AGAIN}",
        )
    return changed(found.machine, now.machine)


def save(
    folder: Path,
    state: State,
    seal: Seal,
    *,
    model: Any,
    optimizer: torch.optim.Optimizer,
    method: Method,
    base: Path,
    world: World,
    keep: int,
    tallies: Mapping[str, Any],
) -> Path:
    """Write a checkpoint, then remove all but the newest ones; every process calls it, the first one writes.

    Args:
        folder: The training's folder.
        state: Where it stands.
        seal: What it depends on.
        model: As the method prepared it.
        optimizer: Of its trained parameters.
        method: Which may keep something of its own, and knows what to save for others.
        base: Folder of the base model, for its tokenizer and dtype.
        world: The processes.
        keep: How many checkpoints to keep.
        tallies: Sums that the next line of the metrics begins with, as JSON.
    """
    target = folder / f"{_PREFIX}{state.step:08d}"
    weights = _gathered(dict(trained_parameters(model)), world)
    moments = _gathered(dict(_moments(model, optimizer)), world)
    own = {name: tensor.detach().cpu().contiguous() for name, tensor in method.state().items()}
    exported, tensors = _exported(model, method, base, world)
    with world.together():
        if world.is_first:
            with staged(target) as scratch:
                write_model(scratch, exported, tensors, base)
                trainer = scratch / "trainer"
                trainer.mkdir()
                save_file(weights, trainer / "weights.safetensors")
                save_file(moments, trainer / "optimizer.safetensors")
                if own:
                    save_file(own, scratch / METHOD)
                write_json(scratch / TALLIES, tallies)
                versions = {"mixer": __version__, "python": platform.python_version()}
                write_json(trainer / "state.json", asdict(state) | asdict(seal) | {"versions": versions})
            for old in sorted(folder.glob(f"{_PREFIX}*"))[:-keep]:
                discard(old)
    return target


def damaged(path: Path, what: str) -> CheckpointError:
    """The error of a file that does not hold what was saved."""
    return CheckpointError(f"{path}: got {what}, expected what mixer train saved", hint=AGAIN)


def write_model(folder: Path, model: Any, tensors: Mapping[str, torch.Tensor], base: Path) -> None:
    """A plain Hugging Face folder: weights, config, tokenizer.

    Args:
        folder: Where to write, there already.
        model: A model of transformers, for its class and config.
        tensors: Its state dict, as it is to be saved.
        base: Folder of the model that it came from.
    """
    model.save_pretrained(folder, state_dict=dict(tensors), safe_serialization=True)
    config = read_json(folder / "config.json")
    # save_pretrained writes the dtype of the model in memory, which loaders would then blow the weights up to.
    config["dtype"] = str(next(t.dtype for t in tensors.values() if t.is_floating_point())).removeprefix("torch.")
    write_json(folder / "config.json", config)
    for pattern in _TOKENIZER:
        for file in base.glob(pattern):
            shutil.copyfile(file, folder / file.name)


def export(target: Path, *, model: Any, method: Method, base: Path, world: World) -> None:
    """Let `target` be the model as it is, ready to be loaded; every process calls it, the first one writes.

    Args:
        target: Folder to write, or to replace.
        model: As the method prepared it.
        method: Which knows what to save for others.
        base: Folder of the base model, for its tokenizer and dtype.
        world: The processes.
    """
    exported, tensors = _exported(model, method, base, world)
    with world.together():
        if world.is_first:
            with staged(target) as scratch:
                write_model(scratch, exported, tensors, base)


def publish(checkpoint: Path, target: Path) -> None:
    """Let `target` be the model of a checkpoint, without what only the trainer needs."""
    with staged(target) as scratch:
        without = shutil.ignore_patterns("trainer")
        shutil.copytree(checkpoint, scratch, ignore=without, copy_function=_linked, dirs_exist_ok=True)


def _linked(source: str, target: str) -> None:
    link(Path(source), Path(target))


def _exported(model: Any, method: Method, base: Path, world: World) -> tuple[Any, dict[str, torch.Tensor]]:
    """What others load: the model's class, and its tensors in the base model's dtype, on the first process."""
    exported = method.export(model)
    dtype = _saved_dtype(base)
    done: dict[int, torch.Tensor] = {}
    own = exported.state_dict(keep_vars=True)
    for tensor in own.values():
        # Tied tensors stay one, so that transformers sees that they are tied. Not by address: an empty shard has none.
        if id(tensor) not in done:
            full = whole(tensor).detach()
            kind = dtype if full.is_floating_point() else full.dtype
            done[id(tensor)] = full.to("cpu", kind) if world.is_first else full
    return exported, {name: done[id(tensor)] for name, tensor in own.items()}


def _saved_dtype(base: Path) -> torch.dtype:
    config = read_json(base / "config.json")
    name = config.get("dtype") or config.get("torch_dtype") or "float32"
    return getattr(torch, name) if name in ("bfloat16", "float16", "float32") else torch.float32


def trained_parameters(model: Any) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """Yield the parameters that train, by name."""
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def _moments(model: Any, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, torch.Tensor]]:
    for name, parameter in trained_parameters(model):
        for kind, value in optimizer.state.get(parameter, {}).items():
            yield f"{name}|{kind}", value


def _gathered(tensors: Mapping[str, torch.Tensor], world: World) -> dict[str, torch.Tensor]:
    """Full tensors on the first process; all take part in gathering them, one after another."""
    found = {}
    for name, tensor in tensors.items():
        full = whole(tensor).detach()
        if world.is_first:
            found[name] = full.cpu().contiguous()
    return found
