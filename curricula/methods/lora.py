"""Low-rank adapters (peft), merged into a plain model whenever it is saved.

Price: two thin matrices a target to train, so little gradient and optimizer state; the base weights stay in memory. It
learns less than full training from a large corpus and forgets less (Biderman et al., arXiv 2405.09673).
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from curricula.methods.base import Method
from curricula.methods.weights import exact, twin, whole
from mixer.errors import RecipeError
from mixer.recipe.methods import LoraMethod

_ADAPTER = "default"


class Lora(Method):
    """Adapters inside the base model, whose class and attributes stay as they are."""

    def __init__(self, section: LoraMethod, *, seed: int = 0) -> None:
        self.section = section
        self._seed = seed

    def prepare(self, model: Any) -> Any:
        """The base model with adapters in its linear modules; their first matrices are drawn by the seed alone.

        Raises:
            RecipeError: A target is no linear module of this model, or shares its weight with another module.
        """
        from peft import LoraConfig, get_peft_model

        linear = {name.rpartition(".")[2] for name, part in model.named_modules() if isinstance(part, torch.nn.Linear)}
        for target in self.section.targets:
            if target not in linear:
                raise RecipeError(
                    f"train.method.targets: got {target!r}, expected a linear module of {type(model).__name__}",
                    hint=f"they are {', '.join(sorted(linear))}",
                )
        self._refuse_tied(model)
        config = LoraConfig(
            r=self.section.rank,
            lora_alpha=self.section.alpha,  # type: ignore[arg-type]  # only ever divided by the rank
            lora_dropout=self.section.dropout,
            target_modules=list(self.section.targets),
            use_rslora=self.section.rslora,
        )
        with torch.random.fork_rng():
            torch.manual_seed(self._seed)
            return get_peft_model(model, config, adapter_name=_ADAPTER).get_base_model()

    def _refuse_tied(self, model: Any) -> None:
        """An adapter changes one of two tied modules: a plain model that ties them cannot hold what was trained."""
        names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
        owners = Counter(id(model.get_parameter(name)) for name in names)
        for name in names:
            module = name.removesuffix(".weight")
            if module.rpartition(".")[2] in self.section.targets and owners[id(model.get_parameter(name))] > 1:
                raise RecipeError(
                    f"train.method.targets: got {module!r}, which shares its weight with another module, expected"
                    " modules with weights of their own",
                    hint="leave it out; to train a tied output layer use `kind: plain` or `kind: freeze`",
                )

    def trainable(self, model: Any) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """Yield the adapters' parameters."""
        for name, parameter in model.named_parameters():
            if any(part.startswith("lora_") for part in name.split(".")):
                yield name, parameter

    def figures(self, model: Any) -> Mapping[str, float]:
        """`update`: the norm of what the adapters add, over that of the weights they add it to."""
        added, base = [], []
        with exact():
            for _, module in _adapted(model):
                up, down, scale = _factors(module)
                # ||B A||^2 = sum((B^T B) * (A A^T)): rank x rank instead of the whole matrix.
                square = float(((up.T @ up) * (down @ down.T)).sum())
                added.append(scale * math.sqrt(max(0.0, square)))
                base.append(float(whole(module.get_base_layer().weight).float().norm()))
        return {"update": math.hypot(*added) / math.hypot(*base)}

    def export(self, model: Any) -> Any:
        """A plain model of the base model's class with merged weights, float32; what trains stays as it is."""
        merged = {}
        with exact():
            for name, module in _adapted(model):
                up, down, scale = _factors(module)
                merged[f"{name}.base_layer.weight"] = whole(module.get_base_layer().weight).float() + scale * (
                    up @ down
                )
        plain = twin(model, merged)
        for name, module in list(_adapted(plain)):
            plain.set_submodule(name, module.get_base_layer())
        return plain


def _factors(module: Any) -> tuple[torch.Tensor, torch.Tensor, float]:
    """B (out, rank) and A (rank, in) float32, and the scale of their product."""
    up, down = (whole(part[_ADAPTER].weight).detach().float() for part in (module.lora_B, module.lora_A))
    return up, down, float(module.scaling[_ADAPTER])


def _adapted(model: Any) -> Iterator[tuple[str, Any]]:
    from peft.tuners.lora import LoraLayer

    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            yield name, module
