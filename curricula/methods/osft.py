"""Orthogonal subspace fine-tuning: updates stay out of what a matrix's large singular directions hold.

W = U S V^T at the start; the first k columns U_h, V_h are protected. After the optimizer's step the whole difference to
the starting weights, dW = W - W_0, is projected: dW - U_h U_h^T dW V_h V_h^T (the paper's block), or without its left
part, its right part, or either. Not the gradient before the step: AdamW divides element by element, which turns an
orthogonal gradient back into the protected subspace, and weight decay never saw the projection (so it happens in peft's
OSF). Projecting the difference holds for any optimizer, does not add up rounding over steps, and, being linear, may be
done every m-th step.

Price, for W of m x n: k(m + n) float32 numbers and W_0 (2 bytes a weight where bfloat16 holds it exactly, else 4); at
each projection about 4mnk + 2k^2(m + n) operations. Source: Nayak et al., arXiv 2504.07097.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch

from curricula.methods.base import Method
from curricula.methods.importance import importances
from curricula.methods.weights import agreed, exact, put, twin, whole
from mixer.errors import RecipeError
from mixer.recipe.methods import OsftMethod

_PARTS = ("left", "right", "anchor")
_SINCE = "since"
_LEAST = 1e-6
"""Directions that hold a smaller share of an update's norm are rounding, not something that was learned."""


@dataclass(frozen=True, slots=True)
class Subspace:
    """What is protected of one matrix.

    Attributes:
        left: (m, k) float32, orthonormal columns.
        right: (n, j) float32, orthonormal columns.
        anchor: (m, n) the weights that updates are counted from.
    """

    left: torch.Tensor
    right: torch.Tensor
    anchor: torch.Tensor

    def to(self, device: torch.device) -> "Subspace":
        """The same on another device."""
        return Subspace(self.left.to(device), self.right.to(device), self.anchor.to(device))


def project(update: torch.Tensor, left: torch.Tensor, right: torch.Tensor, *, protect: str) -> torch.Tensor:
    """The part of an update that is allowed.

    Args:
        update: (m, n) float32.
        left: (m, k) orthonormal columns.
        right: (n, j) orthonormal columns.
        protect: `block` takes U U^T dW V V^T away, `left` U U^T dW, `right` dW V V^T, `both` either.
    """
    if protect == "block":
        return update - left @ ((left.T @ update) @ right) @ right.T
    if protect in ("left", "both"):
        update = update - left @ (left.T @ update)
    if protect in ("right", "both"):
        update = update - (update @ right) @ right.T
    return update


def leaked(update: torch.Tensor, left: torch.Tensor, right: torch.Tensor, *, protect: str) -> float:
    """The norm of what `project` would take away; half its work, since orthonormal columns keep a norm.

    Example:
        >>> axis = torch.tensor([[1.0], [0.0]])
        >>> leaked(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), axis, axis, protect="left")
        5.0
    """
    rows = left.T @ update if protect != "right" else update
    block = rows @ right if protect in ("block", "right") else rows
    if protect != "both":
        return float(block.norm())
    # Both sides, without counting the block that they share twice.
    return math.hypot(float(rows.norm()), float((update @ right - left @ (rows @ right)).norm()))


def protected_rank(shape: tuple[int, int], retention: float) -> int:
    """Directions to protect of a matrix: the share of its singular directions, rounded down, at least one.

    Example:
        >>> protected_rank((576, 192), 0.5)
        96
    """
    return max(1, math.floor(min(1.0, retention) * min(shape)))


def split(weight: torch.Tensor, rank: int) -> Subspace:
    """The subspace of the largest singular directions of a matrix, which also is its own anchor."""
    with exact():
        left, _, right = torch.linalg.svd(weight.float(), full_matrices=False)
    return Subspace(left[:, :rank].contiguous(), right[:rank].T.contiguous(), _compact(weight))


def extend(old: Subspace, weight: torch.Tensor, rank: int) -> Subspace:
    """The old subspace and, up to `rank` on each side, the directions that training used most since its anchor."""
    with exact():
        update = weight.float() - old.anchor.float()
        left = _joined(old.left, update, rank)
        right = _joined(old.right, update.T, rank)
    return Subspace(left, right, _compact(weight))


def _joined(basis: torch.Tensor, update: torch.Tensor, rank: int) -> torch.Tensor:
    """An orthonormal basis with the update's largest left singular directions outside of it joined on."""
    outside = update - basis @ (basis.T @ update)
    found, sizes, _ = torch.linalg.svd(outside, full_matrices=False)
    used = int((sizes > _LEAST * update.norm()).sum())
    found = found[:, : max(0, min(used, rank - basis.shape[1]))]
    found = found - basis @ (basis.T @ found)
    return torch.cat([basis, torch.linalg.qr(found).Q], dim=1)


def _compact(weight: torch.Tensor) -> torch.Tensor:
    """A copy in bfloat16 where that loses nothing, else in float32."""
    short = weight.detach().to(torch.bfloat16, copy=True)
    return short if torch.equal(short.float(), weight.float()) else weight.detach().to(torch.float32, copy=True)


class Osft(Method):
    """Dense training whose accumulated update is projected after the optimizer's step."""

    def __init__(self, section: OsftMethod, *, base: Path = Path()) -> None:
        self.section = section
        self._base = base
        self._parts: dict[str, Subspace] = {}
        self._importance: dict[str, float] = {}
        self._since = 0

    @property
    def needs_calibration(self) -> bool:
        """With `rank: importance`."""
        return self.section.rank == "importance"

    def calibrate(self, model: Any, batches: Iterable[torch.Tensor]) -> None:
        """Measure how much each matrix keeps of its input; see `curricula.methods.importance`."""
        self._importance = agreed(importances(model, self._targets(model), batches))

    def prepare(self, model: Any) -> Any:
        """The model itself, once the subspace of every target is known.

        Raises:
            RecipeError: No module is a target, or an earlier training's state does not fit or already protects as much.
        """
        targets = self._targets(model)
        old = self._earlier(targets)
        for name in targets:
            weight = model.get_parameter(name).detach()
            rank = protected_rank(tuple(weight.shape), self._retention(name))
            part = extend(old[name].to(weight.device), weight, rank) if old else split(weight, rank)
            self._parts[name] = Subspace(agreed(part.left), agreed(part.right), part.anchor)
        if old and all(self._size(name) == old[name].left.shape[1] + old[name].right.shape[1] for name in targets):
            raise RecipeError(
                f"train.method.continues: got {self.section.continues!r}, expected a training that protected less",
                hint="raise `share` (or `target_retention`), or the model is not the one that this training ended with",
            )
        return model

    def trainable(self, model: Any) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """Yield all parameters, or with `others: freeze` the protected matrices alone."""
        for name, parameter in model.named_parameters():
            if self.section.others == "train" or name in self._parts:
                yield name, parameter

    def after_step(self, model: Any) -> None:
        """Project the accumulated update of every target, at each `every`-th step."""
        self._since = (self._since + 1) % self.section.every
        if self._since == 0:
            for name, projected in self._projected(model):
                put(model.get_parameter(name), projected)

    def figures(self, model: Any) -> Mapping[str, float]:
        """`leak`: the norm of what updates hold of the protected part over their own; of all, and of the worst matrix.

        `update`: the norm of the updates over that of the weights they started from.
        """
        leaks, norms, starts = [], [], []
        for name in self._parts:
            with exact():
                part, anchor, update = self._since_anchor(model, name)
                leaks.append(leaked(update, part.left, part.right, protect=self.section.protect))
                norms.append(float(update.norm()))
                starts.append(float(anchor.norm()))
        worst = max((leak / norm for leak, norm in zip(leaks, norms, strict=True) if norm), default=0.0)
        total = math.hypot(*norms)
        leak = math.hypot(*leaks) / total if total else 0.0
        return {"leak": leak, "leak_worst": worst, "update": total / math.hypot(*starts)}

    def state(self) -> dict[str, torch.Tensor]:
        """Both bases and the anchor of each matrix, and the steps since the last projection."""
        parts = {f"{name}.{key}": getattr(part, key) for name, part in self._parts.items() for key in _PARTS}
        return {**parts, _SINCE: torch.tensor(self._since)}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take back the subspaces; those of `prepare` may differ in their last bits on another machine.

        Raises:
            KeyError: The state lacks something.
        """
        found = _subspaces(state)
        self._parts = {name: found[name] for name in self._parts}
        self._since = int(state[_SINCE])

    def export(self, model: Any) -> Any:
        """The model; between two projections a copy of it that is projected."""
        if self._since == 0:
            return model
        kinds = {name: model.get_parameter(name).dtype for name in self._parts}
        return twin(model, {name: value.to(kinds[name]) for name, value in self._projected(model)})

    def _projected(self, model: Any) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield each matrix as it is allowed to be, float32."""
        for name in self._parts:
            with exact():
                part, anchor, total = self._since_anchor(model, name)
                allowed = anchor + project(total, part.left, part.right, protect=self.section.protect)
            yield name, allowed

    def _since_anchor(self, model: Any, name: str) -> tuple[Subspace, torch.Tensor, torch.Tensor]:
        """What is protected of a matrix, its anchor, and all that was added to that, float32."""
        part = self._on_device(model, name)
        anchor = part.anchor.float()
        return part, anchor, whole(model.get_parameter(name)).detach().float() - anchor

    def _on_device(self, model: Any, name: str) -> Subspace:
        """The subspace of a matrix, moved once to where the trainer has put its weights."""
        device = model.get_parameter(name).device
        if self._parts[name].left.device != device:
            self._parts[name] = self._parts[name].to(device)
        return self._parts[name]

    def _targets(self, model: Any) -> list[str]:
        found = [
            f"{name}.weight"
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear)
            and any(fnmatchcase(name.rpartition(".")[2], pattern) for pattern in self.section.targets)
        ]
        if not found:
            raise RecipeError(
                f"train.method.targets: got {list(self.section.targets)}, expected patterns that match a linear module",
                hint="they are compared with the last part of a module's name, such as `q_proj`",
            )
        return found

    def _retention(self, name: str) -> float:
        """The paper's mrr + I (trr - mrr), within [mrr, 1]; I has mean 1 over the matrices."""
        if self.section.rank == "fixed":
            return self.section.share
        least, target = self.section.min_retention, self.section.target_retention
        return min(1.0, max(least, least + self._importance[name] * (target - least)))

    def _earlier(self, targets: list[str]) -> dict[str, Subspace]:
        if self.section.continues is None:
            return {}
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = self._base / self.section.continues
        try:
            found = _subspaces(load_file(path)) if path.is_file() else {}
        except (SafetensorError, KeyError) as error:
            raise RecipeError(
                f"train.method.continues: got {self.section.continues!r}, which cannot be read ({error}), expected the"
                " state of an osft training",
                hint="name the file `method.safetensors` of its last checkpoint",
            ) from error
        if missing := [name for name in targets if name not in found]:
            raise RecipeError(
                f"train.method.continues: got {self.section.continues!r} without `{missing[0]}`,"
                " expected the state of an osft training with these targets",
                hint="name the file `method.safetensors` of its last checkpoint, and the same `targets`",
            )
        return found

    def _size(self, name: str) -> int:
        return self._parts[name].left.shape[1] + self._parts[name].right.shape[1]


def _subspaces(state: Mapping[str, torch.Tensor]) -> dict[str, Subspace]:
    names = dict.fromkeys(key.rpartition(".")[0] for key in state if key != _SINCE)
    return {name: Subspace(*(state[f"{name}.{key}"] for key in _PARTS)) for name in names}
