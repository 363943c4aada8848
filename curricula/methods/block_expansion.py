"""New decoder blocks between the old ones, identities at first; only they train (LLaMA Pro, arXiv 2401.02415).

A new block is a copy whose additions to the residual stream are shut: `o_proj` and `down_proj`, biases too, are zero.
With norms after attention and MLP (Gemma, OLMo 2) their gains are zero instead: behind zeroed matrices such a norm
would be at the zero vector, where its slope is 1/sqrt(eps), about 1000. Either way the shut tensors have a gradient at
the first step and everything else in the block from the second. That the logits are unchanged, and that the changed
config rebuilds this very model, is checked on every model before it trains, not assumed of its family.

Price: groups x per_group more blocks in every forward pass, for ever; no gradients or optimizer state for the old ones,
though the backward pass still runs down to the lowest new block. Freezing the old weights does not freeze the function.
"""

import copy
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from curricula.methods.base import Method
from curricula.methods.importance import changes
from curricula.methods.weights import agreed, whole
from mixer.errors import RecipeError
from mixer.recipe.methods import BlockExpansionMethod

_PER_BLOCK = ("layer_types", "mlp_layer_types", "no_rope_layers")
"""Keys of transformers' configs that hold one entry a block."""
RECORD = "block_expansion"
"""Key of `config.json` under which an expanded model tells which blocks are new, and how they are shut."""
_PASSING = ("training", "gradient_checkpointing")
_NORMS_AFTER = (
    ("post_attention_layernorm", "post_feedforward_layernorm"),
    ("post_self_attn_layernorm", "post_mlp_layernorm"),
)
"""Norms of what attention and MLP put out: of Gemma and OLMo 2, of GLM 4."""
_KINDS = {"attention": ("self_attn.", "post_attention", "post_self_attn"), "mlp": ("mlp.", "post_feed", "post_mlp")}
_PROBE = 32
"""Tokens on which the logits are compared; every position of an identity is one, so a few show it."""


@dataclass(frozen=True, slots=True)
class Block:
    """A block of the expanded model.

    Attributes:
        source: Index of the base model's block that it is, or that it copies.
        is_new: Whether it is a copy.
    """

    source: int
    is_new: bool


def interleaved(depth: int, *, groups: int, per_group: int) -> list[Block]:
    """The expanded stack: groups as equal as can be, the longer ones first, copies of its last blocks after each.

    Raises:
        RecipeError: More groups than blocks, or more copies than the shortest group has blocks.

    Example:
        >>> [block.source for block in interleaved(4, groups=2, per_group=1)]
        [0, 1, 1, 2, 3, 3]
    """
    size, longer = divmod(depth, groups)
    if per_group > size:
        raise RecipeError(
            f"train.method: got groups {groups} and per_group {per_group} for {depth} blocks,"
            f" expected groups x per_group of at most {depth}",
            hint=f"with groups {groups} per_group is at most {size}" if size else f"groups is at most {depth}",
        )
    stack: list[Block] = []
    for group in range(groups):
        start = group * size + min(group, longer)
        end = start + size + (group < longer)
        stack += [Block(index, is_new=False) for index in range(start, end)]
        stack += [Block(index, is_new=True) for index in range(end - per_group, end)]
    return stack


def least_critical(changed: Sequence[float], *, groups: int, per_group: int) -> list[Block]:
    """The expanded stack: after each of the `groups` blocks that change least, `per_group` copies of it.

    Args:
        changed: How much each block changes the residual stream.
        groups: Blocks to choose; of equal ones the lower.
        per_group: Copies of each.

    Raises:
        RecipeError: More groups than blocks.

    Example:
        >>> [block.source for block in least_critical([0.9, 0.1, 0.2], groups=1, per_group=2)]
        [0, 1, 1, 1, 2]
    """
    if groups > len(changed):
        raise RecipeError(
            f"train.method.groups: got {groups} for {len(changed)} blocks, expected at most {len(changed)}",
            hint="lower `groups`, or raise `per_group` instead",
        )
    chosen = set(sorted(range(len(changed)), key=lambda index: changed[index])[:groups])
    return [
        block
        for index in range(len(changed))
        for block in (Block(index, is_new=False), *[Block(index, is_new=True)] * (per_group * (index in chosen)))
    ]


class BlockExpansion(Method):
    """The model with new blocks, which alone train unless the recipe says otherwise."""

    def __init__(self, section: BlockExpansionMethod) -> None:
        self.section = section
        self._changed: list[float] = []
        self._stack: list[Block] = []
        self._shut: dict[str, float] = {}
        self._sizes: dict[str, float] = {}

    @property
    def needs_calibration(self) -> bool:
        """With `placement: least_critical`."""
        return self.section.placement == "least_critical"

    def calibrate(self, model: Any, batches: Iterable[torch.Tensor]) -> None:
        """Measure how much each block changes the residual stream."""
        self._changed = agreed(changes(model, _decoder(model).layers, batches))

    def prepare(self, model: Any) -> Any:
        """The model with new blocks, whose logits are those of the base model to the last bit.

        Raises:
            RecipeError: The groups do not fit the depth, or the architecture cannot be expanded.
        """
        decoder = _decoder(model)
        self._stack = self._placed(len(decoder.layers))
        self._shut = _shut(decoder.layers[0])
        before = _logits(model)
        old = list(decoder.layers)
        self._sizes = self._sizes_of(old[block.source] for block in self._stack if block.is_new)
        decoder.layers = torch.nn.ModuleList(
            _copied(old[block.source], model.config, self._shut) if block.is_new else old[block.source]
            for block in self._stack
        )
        _renumber(decoder.layers)
        self._configure(model.config)
        if told := _difference(model):
            raise _unfit(model, f"a config that rebuilds another model ({told})")
        if not torch.equal(before, _logits(model)):
            raise _unfit(model, "logits that change when shut blocks are added")
        return model

    def trainable(self, model: Any) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """Yield the parameters of the new blocks, or all with `train: all`."""
        prefixes = self._prefixes(model)
        for name, parameter in model.named_parameters():
            if self.section.train == "all" or name.startswith(prefixes):
                yield name, parameter

    def figures(self, model: Any) -> Mapping[str, float]:
        """How far new blocks have opened: the norm of the tensors that were shut, over that in the copied blocks."""
        layers = _decoder(model).layers
        sizes = self._sizes_of(layers[index] for index in self._new())
        return {f"new_{kind}": size / self._sizes[kind] for kind, size in sizes.items()}

    def state(self) -> dict[str, torch.Tensor]:
        """The base model's block behind each block, to be compared at a resume."""
        return {"sources": torch.tensor([block.source for block in self._stack])}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Compare the places of the blocks.

        Raises:
            RecipeError: The checkpoint has its new blocks elsewhere.
        """
        sources = [block.source for block in self._stack]
        if sources != state["sources"].tolist():
            raise RecipeError(
                f"train.method: got new blocks behind {sources}, expected those of the checkpoint,"
                f" {state['sources'].tolist()}",
                hint="resume with the recipe, the base model and the calibration sequences that it began with",
            )

    def _placed(self, depth: int) -> list[Block]:
        groups, per_group = self.section.groups, self.section.per_group
        if self.needs_calibration:
            return least_critical(self._changed, groups=groups, per_group=per_group)
        return interleaved(depth, groups=groups, per_group=per_group)

    def _configure(self, config: Any) -> None:
        for key in _PER_BLOCK:
            if entries := getattr(config, key, None):
                setattr(config, key, [entries[block.source] for block in self._stack])
        config.num_hidden_layers = len(self._stack)
        setattr(config, RECORD, {"blocks": self._new(), "shut": self._shut})

    def _new(self) -> list[int]:
        return [index for index, block in enumerate(self._stack) if block.is_new]

    def _sizes_of(self, blocks: Iterable[Any]) -> dict[str, float]:
        """Kind -> the norm, over blocks, of how far the tensors of that kind are from being shut."""
        squares = dict.fromkeys(_KINDS, 0.0)
        for block in blocks:
            for key, value in self._shut.items():
                kind = next(kind for kind, starts in _KINDS.items() if key.startswith(starts))
                squares[kind] += float((whole(block.get_parameter(key)).detach().float() - value).norm() ** 2)
        return {kind: math.sqrt(square) for kind, square in squares.items()}

    def _prefixes(self, model: Any) -> tuple[str, ...]:
        """What the names of parameters of new blocks begin with."""
        layers = _decoder(model).layers
        name = next(name for name, module in model.named_modules() if module is layers)
        return tuple(f"{name}.{index}." for index in self._new())


def _decoder(model: Any) -> Any:
    decoder = getattr(model, "get_decoder", lambda: None)()
    if not hasattr(decoder, "layers") or not hasattr(model.config, "num_hidden_layers"):
        raise _unfit(model, "no decoder with `layers`")
    return decoder


def _shut(block: Any) -> dict[str, float]:
    """Tensors of a block, and the value at which it adds nothing to the residual stream."""
    for names in _NORMS_AFTER:
        if all(hasattr(block, name) for name in names):
            return {f"{name}.weight": _silent(block.get_submodule(name)) for name in names}
    found: dict[str, float] = {}
    for path in ("self_attn.o_proj", "mlp.down_proj"):
        try:
            module = block.get_submodule(path)
        except AttributeError as error:
            raise _unfit(block, f"no `{path}`") from error
        found |= {f"{path}.{name}": 0.0 for name, _ in module.named_parameters()}
    return found


def _silent(norm: Any) -> float:
    """The weight for which a norm's gain is zero: -1 where the gain is 1 + weight, as in Gemma."""
    trial = copy.deepcopy(norm).requires_grad_(requires_grad=False)
    for value in (0.0, -1.0):
        trial.weight.fill_(value)
        if not trial(torch.ones_like(trial.weight)).any():
            return value
    raise _unfit(norm, "a norm whose gain is neither its weight nor 1 + weight")


def _copied(block: Any, config: Any, shut: Mapping[str, float]) -> Any:
    new = copy.deepcopy(block, {id(config): config})
    for key, value in shut.items():
        new.get_parameter(key).detach().fill_(value)
    return new


def _renumber(blocks: Iterable[Any]) -> None:
    """Caches find a block's keys and values by its index."""
    for index, block in enumerate(blocks):
        for module in block.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = index


@torch.no_grad()
def _logits(model: Any) -> torch.Tensor:
    training, weight = model.training, model.get_input_embeddings().weight
    ids = torch.arange(_PROBE, device=weight.device).unsqueeze(0) % len(weight)
    logits: torch.Tensor = model.eval()(input_ids=ids, use_cache=False).logits
    model.train(training)
    return logits


def _difference(model: Any) -> str:
    """How the model that its config describes is another one; empty where it is the same."""
    from huggingface_hub.errors import StrictDataclassError

    try:
        with torch.device("meta"):
            rebuilt = type(model)(type(model.config).from_dict(model.config.to_dict()))
    except (ValueError, StrictDataclassError) as error:
        return str(error)
    ours, theirs = _settings(model), _settings(rebuilt)
    return next((f"`{key}` of a block" for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)), "")


def _settings(model: Any) -> dict[str, Any]:
    """Shapes and plain settings of every module of the blocks: what decides what they compute, beside the weights."""
    found: dict[str, Any] = {}
    for name, module in _decoder(model).layers.named_modules():
        found |= {f"{name}.{key}": tuple(value.shape) for key, value in module.named_parameters(recurse=False)}
        plain = {key: value for key, value in vars(module).items() if not key.startswith("_") and key not in _PASSING}
        found |= {f"{name}.{key}": value for key, value in plain.items() if isinstance(value, int | float | str)}
    return found


def _unfit(model: Any, what: str) -> RecipeError:
    return RecipeError(
        f"train.method: got {type(model).__name__} with {what}, expected a decoder like Llama, Mistral, Qwen or Gemma",
        hint="use `kind: plain` or `freeze`; `osft` and `lora` take any model whose blocks have linear modules",
    )
