"""Everything that is set up before the first step: model, method, objective, optimizer, and where they go on from."""

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError

from curricula import checkpoint as checkpoints
from curricula.checkpoint import Seal, State
from curricula.job import Job
from curricula.masking import attention_of, check_isolation
from curricula.metrics import flops_per_token, peak_of
from curricula.objective import Objective, blocks_of, compact, rounded
from curricula.order import seed_of
from curricula.parallel import World, replicate, shard
from curricula.resume import load_optimizer, load_weights, method_state
from mixer.errors import RecipeError
from mixer.hardware import multiplies_bfloat16

_MICRO_TOKENS = {"cpu": 2048, "cuda": 16_384}
_MASK = re.compile(r"\.att\w*\.(masked_)?bias$")
"""What old files hold beside the weights of GPT-2 and GPT-NeoX."""
_CALIBRATION = 32
"""Sequences, the first of the order, that a method may measure on."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What a training works with.

    Args:
        model: As the method prepared it.
        objective: The model with its loss.
        wrapped: The same, with gradients exchanged between processes.
        optimizer: AdamW over what trains.
        micro_batch: Sequences that a process takes at once.
        machine: What rounding depends on.
        flops: A token's, where the formula holds.
        peak: FLOP/s of the device, where they are known.
        state: Where training goes on from.
    """

    model: Any
    objective: Objective
    wrapped: Any
    optimizer: torch.optim.Optimizer
    micro_batch: int
    machine: Mapping[str, Any]
    flops: float | None
    peak: float | None
    state: State

    def mfu(self, rate: float) -> float | str:
        """The share of the device's peak that so many tokens a second are, on one process; "n/a" where unknown."""
        return rate * self.flops / self.peak if self.flops and self.peak else "n/a"


def open_bench(job: Job, *, world: World, say: Callable[[str], None]) -> Bench:
    """Set a training up, at its newest checkpoint where there is one.

    Raises:
        CheckpointError: The checkpoint is of another training, or damaged.
        RecipeError: The model cannot be trained as the recipe says.
    """
    settings, is_sharded = job.settings, job.settings.parallel == "fsdp" and world.size > 1
    if settings.parallel == "fsdp" and not is_sharded:
        say("parallel: fsdp has no effect on one process; torchrun starts several")
    dtype = _dtype(settings.dtype, world.device.type)
    micro_batch = _micro_batch(job, world)
    model, attention = _loaded(job, world, is_half=dtype != torch.float32)
    if told := too_long(model, job.loader.rows.sequence_length):
        say(told)
    model = _prepared(job, model, world)
    machine = {
        "threads": torch.get_num_threads(),
        "processes": world.size,
        "device": world.device.type,
        "torch": torch.__version__,
        "dtype": str(dtype).removeprefix("torch."),
        "attention": attention,
        "micro_batch": micro_batch,
        "parallel": settings.parallel,
        "compile": settings.compile,
        **({"dropout": True} if draws(model) else {}),
    }
    found = checkpoints.latest(job.folder)
    state = _resumed(job, found, model, machine, say) if found else State()
    flops = flops_per_token(model, sequence_length=job.loader.rows.sequence_length)
    if not is_sharded:
        compact(model)
    objective = Objective(model, dtype=dtype, is_sharded=is_sharded).train()
    if settings.document_mask:
        with rounded(model, dtype):
            check_isolation(model.base_model, vocabulary=model.get_input_embeddings().weight.shape[0])
    if settings.activation_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    for block in blocks_of(model) if settings.compile else ():
        block.compile()
    wrapped = shard(objective, model, dtype=dtype, size=world.size) if is_sharded else replicate(objective, world.size)
    optimizer = optimizer_of(model, betas=settings.betas, weight_decay=settings.weight_decay)
    if found:
        load_optimizer(found, model, optimizer)
    return Bench(
        model=model,
        objective=objective,
        wrapped=wrapped,
        optimizer=optimizer,
        micro_batch=micro_batch,
        machine=machine,
        flops=flops,
        peak=peak_of(world.device),
        state=state,
    )


def seal_of(job: Job, state: State, machine: Mapping[str, Any]) -> Seal:
    """What a training depends on at a state: the orders that are known, of later stages too, and what it reads next."""
    loader = job.loader
    known = {
        f"order {track.name}": loader.fingerprint(stage)
        for stage, track in enumerate(loader.tracks)
        if loader.first(stage) < state.position or (not track.is_open and loader.has_order(stage))
    }
    # What dropout draws depends on how a step is cut.
    cut = {"micro_batch": job.settings.micro_batch} if machine.get("dropout") else {}
    return Seal(loader.digest(state.position), {**job.identity, **known, **cut}, machine)


def draws(model: torch.nn.Module) -> bool:
    """Whether a model drops out when it trains."""
    return any(
        (isinstance(part, torch.nn.Dropout) and part.p > 0)
        or any("dropout" in key and isinstance(value, float) and value > 0 for key, value in vars(part).items())
        for part in model.modules()
    )


def optimizer_of(model: Any, *, betas: tuple[float, float], weight_decay: float) -> torch.optim.AdamW:
    """AdamW over the parameters that train: matrices decay, vectors (norms, biases) do not."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in parameters if parameter.ndim > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in parameters if parameter.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=0.0, betas=betas, fused=True)


@contextlib.contextmanager
def settled(world: World) -> Iterator[None]:
    """Deterministic kernels on a CPU, and global generators that are as they were when the block ends."""
    filling: Any = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled(), filling.fill_uninitialized_memory
    devices = [world.device] if world.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.use_deterministic_algorithms(world.device.type == "cpu")
        # Filling every new tensor finds readers of garbage; it costs time, and there are none here.
        filling.fill_uninitialized_memory = False
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before[0])
            filling.fill_uninitialized_memory = before[1]


def _dtype(wanted: str, device: str) -> torch.dtype:
    if wanted == "auto":
        wanted = "bfloat16" if device == "cuda" or multiplies_bfloat16() else "float32"
    return torch.bfloat16 if wanted == "bfloat16" else torch.float32


def _micro_batch(job: Job, world: World) -> int:
    fits = max(1, _MICRO_TOKENS[world.device.type] // job.loader.rows.sequence_length)
    return min(job.settings.micro_batch or fits, -(-job.loader.per_step // world.size))


def _loaded(job: Job, world: World, *, is_half: bool) -> tuple[Any, str]:
    """The base model in float32 on its device, and what computes its attention."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    settings = job.settings
    try:
        config = AutoConfig.from_pretrained(job.base, local_files_only=True)
        attention = attention_of(
            settings.attention, config, device=world.device.type, is_compiled=settings.compile, is_half=is_half
        )
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            job.base,
            dtype=torch.float32,
            local_files_only=True,
            use_safetensors=True,
            attn_implementation=attention,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise RecipeError(
            f"train.model: got {job.base}, expected a causal language model: {error}",
            hint="name a folder with config.json, safetensors and tokenizer.json",
        ) from error
    model, told = loaded
    if missing := sorted(told["missing_keys"]) or sorted(map(str, told["mismatched_keys"])):
        # transformers would begin with random weights in their place, and say so in a log alone.
        raise RecipeError(
            f"train.model: got {job.base} without {len(missing)} of the weights that {type(model).__name__} has,"
            f" such as {missing[0]}, expected all of them",
            hint="the files are damaged, or config.json is that of another model",
        )
    if unread := _unread(model, told["unexpected_keys"]):
        # A config of fewer blocks, or of blocks with fewer parts, would cut the model short without a word.
        raise RecipeError(
            f"train.model: got {job.base} with {len(unread)} weights that its config.json has no place for, such as"
            f" {unread[0]}, expected a place for each",
            hint="config.json is that of another model, or names fewer layers than there are weights for",
        )
    known, needed = model.get_input_embeddings().weight.shape[0], job.loader.rows.vocabulary
    if needed > known:
        raise RecipeError(
            f"train.model: got {known:,} embeddings, expected at least {needed:,}, one for each token of the shards",
            hint="let `tokenizer` name the model's folder or id, and build again",
        )
    return model.to(world.device), attention


def _unread(model: Any, unexpected: Iterable[str]) -> list[str]:
    """Weights of blocks that the model has not, or of parts that its blocks have not."""
    blocks = {id(block) for block in blocks_of(model)}
    homes = tuple(f"{name.rpartition('.')[0]}." for name, part in model.named_modules() if id(part) in blocks)
    inside = (key for key in unexpected if homes and key.startswith(homes))
    return sorted(key for key in inside if key.endswith(("weight", "bias")) and not _MASK.search(key))


def too_long(model: Any, length: int) -> str:
    """A warning where sequences are longer than the model was made for; empty where they are not.

    Raises:
        RecipeError: The model looks its positions up, and has no more of them.
    """
    most = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if not isinstance(most, int) or length <= most:
        return ""
    told = f"got sequences of {length:,} tokens for {type(model).__name__} of {most:,} positions"
    tables = [part for part in model.modules() if isinstance(part, torch.nn.Embedding)]
    # Some keep a place or two for padding in front.
    if any(most <= len(table.weight) <= most + 2 and table is not model.get_input_embeddings() for table in tables):
        raise RecipeError(
            f"sequence_length: {told}, expected at most as many", hint=f"set `sequence_length: {most}` and build again"
        )
    return f"warning: sequence_length: {told}; it has never seen later ones"


def _prepared(job: Job, model: Any, world: World) -> Any:
    """The model as the method trains it, with the rest frozen."""
    if job.method.needs_calibration:
        job.method.calibrate(model, _calibration(job, world))
    with torch.random.fork_rng():
        torch.manual_seed(seed_of(job.seed, "prepare"))
        model = job.method.prepare(model)
    training = {name for name, _ in job.method.trainable(model)}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in training)
    return model


def _calibration(job: Job, world: World) -> Iterator[torch.Tensor]:
    """Yield the documents of the first sequences, each alone, without padding."""
    step = job.loader.step(0)
    picked = np.empty((0, 2), np.int64) if step is None else job.loader.picked(step, most=_CALIBRATION)
    for source, sequence in picked.tolist():
        row = job.loader.rows.row(source, sequence)
        for start, end in pairwise([*row.starts.tolist(), len(row.ids)]):
            # What predicts nothing is padding, or a document of one token.
            if (used := np.flatnonzero(row.weights[start:end])).size:
                yield torch.from_numpy(row.ids[start : start + int(used[-1]) + 2]).unsqueeze(0).to(world.device)


def _resumed(job: Job, checkpoint: Path, model: Any, machine: Mapping[str, Any], say: Callable[[str], None]) -> State:
    """The state of a checkpoint, whose weights are now the model's."""
    state, seal = checkpoints.read(checkpoint)
    inexact = checkpoints.check(checkpoint, state, seal, seal_of(job, state, machine))
    say(f"resume at {state.tokens:,} tokens from {checkpoint}")
    if inexact:
        is_drawn = machine.get("dropout") and "processes" in inexact
        told = "dropout draws otherwise" if is_drawn else "the resume is exact up to rounding, not to the last bit"
        say(f"warning: {inexact}: {told}")
    kept = method_state(checkpoint)
    try:
        job.method.load_state(kept)
    except KeyError as error:
        raise checkpoints.damaged(checkpoint / checkpoints.METHOD, f"no {error}") from error
    load_weights(checkpoint, model)
    return state
