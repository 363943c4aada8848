"""What the training methods promise, on the packaged model: identities, leak ratios beside peft's OSF, interpolation.

    .venv/bin/python benchmarks/methods.py ../shared/data [PART ...]

Parts: blocks, osft, osft_whole, importance, interpolate; all by default. Every training is 100 AdamW steps over one
sequence of 64 tokens of a biology book, weight decay 0.1. `float32`: parameters and arithmetic; `bfloat16`: float32
parameters under bfloat16 autocast, as the trainer holds what trains; `bfloat16 parameters`: everything in bfloat16. The
leak is ||U_h^T dW V_h|| / ||dW|| over all protected matrices, dW counted from the weights before training, the
subspaces being the upper half of the directions of those weights; `both` counts what dW has of either side.
"""

import io
import multiprocessing
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import torch
import zstandard
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from curricula.interpolate import interpolate as mix
from curricula.methods.base import Method
from curricula.methods.block_expansion import BlockExpansion
from curricula.methods.importance import importances
from curricula.methods.osft import Osft, Subspace, project
from curricula.model import model_folder
from mixer.recipe.methods import BlockExpansionMethod, OsftMethod

STEPS, LENGTH, FIRST = 100, 64, 6
BOOK, GENERAL = "science_text/openstax-biology.jsonl.zst", "english/wikitext2-valid.txt.zst"


@dataclass(frozen=True, slots=True)
class Inputs:
    """The packaged model's folder, and sequences of tokens: to train on, held out, of another kind."""

    folder: Path
    book: torch.Tensor
    held_out: torch.Tensor
    general: torch.Tensor

    def model(self, dtype: torch.dtype = torch.float32, *, depth: int = 30) -> Any:
        return AutoModelForCausalLM.from_pretrained(self.folder, dtype=dtype, num_hidden_layers=depth)


def inputs(data: Path) -> Inputs:
    folder = model_folder("smollm2", base=Path(), store=Path.home() / ".cache" / "curriculum-mixer")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def sequences(text: str, count: int) -> torch.Tensor:
        return torch.tensor(tokenizer.encode(text).ids[: count * LENGTH]).view(count, LENGTH)

    book = pl.read_ndjson(io.BytesIO(unpacked(data / BOOK)))["text"].to_list()
    general = unpacked(data / GENERAL).decode()[:60_000]
    return Inputs(
        folder,
        sequences("\n\n".join(book[:40]), STEPS),
        sequences("\n\n".join(book[60:80]), 32),
        sequences(general, 32),
    )


def unpacked(path: Path) -> bytes:
    return bytes(zstandard.ZstdDecompressor().stream_reader(path.open("rb")).read())


def train(model: Any, method: Method, book: torch.Tensor, *, autocast: bool, rate: float, steps: int = STEPS) -> float:
    """Train, and the seconds that the method's own hook took."""
    chosen = [parameter for _, parameter in method.trainable(model)]
    model.requires_grad_(requires_grad=False)
    for parameter in chosen:
        parameter.requires_grad_(requires_grad=True)
    optimizer = torch.optim.AdamW(chosen, lr=rate, weight_decay=0.1)
    own = 0.0
    model.train()
    for ids in book[:steps]:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            found = model(input_ids=ids[None], labels=ids[None], use_cache=False).loss
        found.backward()
        optimizer.step()
        optimizer.zero_grad()
        began = time.perf_counter()
        method.after_step(model)
        own += time.perf_counter() - began
    model.eval()
    return own


@torch.no_grad()
def loss(model: Any, rows: torch.Tensor) -> float:
    """Mean nats a token."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = [float(model(input_ids=ids[None], labels=ids[None], use_cache=False).loss) for ids in rows]
    return sum(losses) / len(losses)


def blocks(given: Inputs) -> None:
    ids = given.held_out[:4]
    for dtype in (torch.float32, torch.bfloat16):
        model = given.model(dtype).eval()
        with torch.no_grad():
            before = model(input_ids=ids, use_cache=False).logits
            method = BlockExpansion(BlockExpansionMethod(kind="block_expansion"))
            after = method.prepare(model)(input_ids=ids, use_cache=False).logits
        change = float((after - before).abs().max())
        print(f"blocks: {len(model.model.layers)} blocks, {dtype}: largest change of a logit at step 0: {change}")
    method = BlockExpansion(BlockExpansionMethod(kind="block_expansion"))
    model = method.prepare(given.model())
    new = {name for name, _ in method.trainable(model)}
    frozen = {name: value.clone() for name, value in model.named_parameters() if name not in new}
    print(f"blocks: {sum(model.get_parameter(name).numel() for name in new):,} parameters train")
    first = loss(model, given.held_out)
    for steps, book in ((1, given.book[:1]), (STEPS, given.book[1:])):
        train(model, method, book, autocast=True, rate=2e-4)
        same = sum(torch.equal(model.get_parameter(name), value) for name, value in frozen.items())
        shut = [f"{prefix}{key}" for prefix in method._prefixes(model) for key in method._shut]
        opened = sum(bool(model.get_parameter(name).any()) for name in shut)
        told = ", ".join(f"{name} {value:.2e}" for name, value in method.figures(model).items())
        print(
            f"blocks: after {steps} steps {same} of {len(frozen)} frozen tensors bit-identical, {opened} of {len(shut)}"
            f" output matrices non-zero, {told}"
        )
    print(f"blocks: loss of held-out biology {first:.3f} -> {loss(model, given.held_out):.3f}")


def leak(parts: dict[str, Subspace], update_of: Callable[[str], torch.Tensor], protect: str) -> float:
    """The share of all updates' norm that lies in what `protect` names."""
    lost = total = 0.0
    for name, part in parts.items():
        update = update_of(name).detach().double()
        allowed = project(update, part.left.double(), part.right.double(), protect=protect)
        lost += float((update - allowed).square().sum())
        total += float(update.square().sum())
    return float((lost / total) ** 0.5)


def osft(given: Inputs) -> None:
    """All kinds beside each other, on the first blocks alone, so that it ends within minutes."""
    parts, state = subspaces(given, FIRST)
    for kind in KINDS:
        for protect in ("block", "both"):
            ours(given, parts, state, kind, protect=protect, depth=FIRST)
        peft_osf(given, parts, kind, depth=FIRST)


def osft_whole(given: Inputs) -> None:
    """The paper's projection on the whole model."""
    parts, state = subspaces(given, 30)
    for kind in KINDS[:2]:
        ours(given, parts, state, kind, protect="block", depth=30)


def subspaces(given: Inputs, depth: int) -> tuple[dict[str, Subspace], dict[str, torch.Tensor]]:
    reference = Osft(OsftMethod(kind="osft"))
    model = given.model(depth=depth)
    began = time.perf_counter()
    reference.prepare(model)
    seconds, parts = time.perf_counter() - began, reference._parts
    factors = sum(part.left.nbytes + part.right.nbytes for part in parts.values())
    anchors = sum(part.anchor.nbytes for part in parts.values())
    weights = sum(part.anchor.numel() for part in parts.values())
    print(
        f"osft: {depth} blocks, {len(parts)} matrices of {weights:,} weights, SVDs {seconds:.0f} s;"
        f" bases {factors / weights:.2f} bytes a weight, anchors {anchors / weights:.2f}"
    )
    return parts, reference.state()


def ours(given: Inputs, parts: Any, state: Any, kind: tuple[Any, ...], *, protect: str, depth: int) -> None:
    label, dtype, autocast = kind
    method = Osft(OsftMethod(kind="osft", protect=protect, others="freeze"))
    model = given.model(dtype, depth=depth)
    # The decomposition of the reference, so that it is made once.
    method._parts = dict(parts)
    method.load_state(state)
    began = time.perf_counter()
    own = train(model, method, given.book, autocast=autocast, rate=2e-5)
    seconds = time.perf_counter() - began
    report(f"osft, protect: {protect}, {label}", parts, lambda name: now(model, name, parts), protect)
    if dtype == torch.float32:
        rough = partial(now, model, parts=parts, saved=torch.bfloat16)
        report(f"    saved in bfloat16 ({own:.0f} s of {seconds:.0f} s are projections)", parts, rough, protect)


KINDS = (
    ("float32", torch.float32, False),
    ("bfloat16", torch.float32, True),
    ("bfloat16 parameters", torch.bfloat16, False),
)


def now(model: Any, name: str, parts: dict[str, Subspace], *, saved: torch.dtype = torch.float32) -> torch.Tensor:
    return model.get_parameter(name).detach().to(saved).float() - parts[name].anchor.float()


def report(label: str, parts: dict[str, Subspace], update_of: Callable[[str], torch.Tensor], protect: str) -> None:
    size = sum(float(update_of(name).square().sum()) for name in parts) ** 0.5
    start = sum(float(part.anchor.float().square().sum()) for part in parts.values()) ** 0.5
    found = {mode: leak(parts, update_of, mode) for mode in dict.fromkeys((protect, "block"))}
    told = ", ".join(f"{mode} {value:.1e}" for mode, value in found.items())
    print(f"{label}: leak {told} (update {size / start:.1e} of the weights)")


def peft_osf(given: Inputs, parts: Any, kind: tuple[Any, ...], *, depth: int) -> None:
    from peft import OSFConfig, get_peft_model

    class Adapters(Method):
        def trainable(self, model: Any) -> Any:
            return ((name, value) for name, value in model.named_parameters() if "osf_svd_params" in name)

    label, dtype, autocast = kind
    config = OSFConfig(effective_rank=0.5, target_modules=sorted({name.split(".")[-2] for name in parts}))
    model = get_peft_model(given.model(dtype, depth=depth), config).get_base_model()
    train(model, Adapters(), given.book, autocast=autocast, rate=2e-5)

    def update_of(name: str) -> torch.Tensor:
        return model.get_submodule(name.removesuffix(".weight")).float().get_delta_weight("default")

    report(f"peft's OSF (both sides), {label}", parts, update_of, "both")


def importance(given: Inputs) -> None:
    model = given.model()
    names = Osft(OsftMethod(kind="osft"))._targets(model)
    began = time.perf_counter()
    found = importances(model, names, given.book.view(-1, 10 * LENGTH)[:, : 10 * LENGTH])
    values = list(found.values())
    seconds = time.perf_counter() - began
    print(f"importance: {min(values):.2f} to {max(values):.2f}, {seconds:.0f} s, {given.book.numel()} tokens")


def interpolate(given: Inputs) -> None:
    model = given.model()
    train(model, Method(), given.book, autocast=True, rate=1e-4)
    shares = (0.0, 0.3, 0.5, 0.7, 1.0)
    with tempfile.TemporaryDirectory() as scratch:
        trained = Path(scratch) / "trained"
        model.save_pretrained(trained)
        del model
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            told = pool.apply(watched, (given.folder, trained, Path(scratch) / "sweep", shares))
        print(f"interpolate: {told}")
        for share in shares:
            path = Path(scratch) / "sweep" / f"share-{share:.2f}"
            mixed = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
            found = f"held-out biology {loss(mixed, given.held_out):.3f}, wikitext {loss(mixed, given.general):.3f}"
            print(f"interpolate: share {share:.1f} of the base: {found}")


def watched(base: Path, trained: Path, out: Path, shares: tuple[float, ...]) -> str:
    """Time and memory of a sweep in shards of 64 MB; in a process of its own, which holds nothing else."""
    peak, done = [anonymous()], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            peak.append(anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.perf_counter()
    for share in shares:
        path = mix(base, trained, out / f"share-{share:.2f}", share=share, shard_bytes=64 * 10**6)
    seconds = (time.perf_counter() - began) / len(shares)
    done.set()
    watcher.join()
    size = sum(file.stat().st_size for file in path.glob("*.safetensors")) / 2**20
    more = f"{(max(peak) - peak[0]) / 2**10:.0f} MiB"
    return f"{seconds:.1f} s a model of {size:.0f} MiB, at most {more} of memory (its largest tensor: 108 MiB)"


def anonymous() -> int:
    """KiB of memory that are no mapped files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1])


PARTS = {
    "blocks": blocks,
    "osft": osft,
    "osft_whole": osft_whole,
    "importance": importance,
    "interpolate": interpolate,
}


if __name__ == "__main__":
    given = inputs(Path(sys.argv[1]))
    for name in sys.argv[2:] or PARTS:
        PARTS[name](given)
