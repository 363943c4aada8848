"""What continual pre-training teaches and what it makes a model forget, method by method, from one healed base.

    .venv/bin/python benchmarks/retention/experiment.py build
    .venv/bin/python benchmarks/retention/experiment.py heal
    .venv/bin/python benchmarks/retention/experiment.py run [ARM ...]
    .venv/bin/python benchmarks/retention/experiment.py report [--guards]

`arms.yaml` says what is compared (`--arms` names another file). Every step is a command of `mixer`, printed as it runs.
What has ended is not done again, and a training that was stopped goes on from its checkpoint: run the same again.
`build` needs no GPU, and no base but for text that the base writes, so shards may be made on one machine and trained
on upon another.
"""

import argparse
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import frontier
import yaml
from arms import Arms
from pairs import pairs_of, swapped

from curricula.interpolate import digits_of
from curricula.model import fingerprint, model_folder
from curricula.order import seed_of
from mixer.benchmark_rows import read_rows
from mixer.commands.options import store
from mixer.recipe.file import load
from mixer.recipe.recipe import Recipe
from mixer.run import digest, read_json, sha256, write_json, write_text

GATE_FAILED = 3
BASE = "{base}"
"""Stands for the base's folder in the overrides of text that the base writes."""
Mixer = Callable[[Sequence[str]], tuple[int, str]]


@dataclass(frozen=True)
class Lab:
    """Where the comparison is done.

    Args:
        arms: What is compared.
        base: Folder of its file.
        mixer: Runs a command, and gives its exit code and what it wrote.
    """

    arms: Arms
    base: Path
    mixer: Mixer

    @property
    def out(self) -> Path:
        return self.base / self.arms.out

    @cached_property
    def key(self) -> str:
        """What the base depends on: the recipe that heals, its model, and the split texts that it reads."""
        self.split()
        recipe = load(self.base / self.arms.heal)
        assert recipe.train is not None
        model = model_folder(recipe.train.model, base=self.base, store=store())
        told = recipe.model_dump(mode="json")
        paths = [path for path in sorted((self.out / "data").glob("*.jsonl")) if path.name in json.dumps(told)]
        return digest([told, fingerprint(model, store()), {path.name: sha256(path) for path in paths}])[:10]

    @property
    def healed(self) -> Path:
        return self.out / f"base-{self.key}"

    @property
    def model(self) -> Path:
        return (self.healed / "checkpoints" / "plain" / "final").resolve()

    def split(self) -> None:
        """Write `data/NAME-train.jsonl` and `data/NAME-held.jsonl`."""
        for name, own in self.arms.split.items():
            paths = [self.out / "data" / f"{name}-{part}.jsonl" for part in ("train", "held")]
            if all(path.is_file() for path in paths):
                continue
            parts: tuple[list[str], list[str]] = ([], [])
            for row in read_rows(self.base / own.path):
                is_held = seed_of(0, "held", str(row.values[own.by])) < own.held * 2**64
                parts[is_held].append(json.dumps(row.values, ensure_ascii=False) + "\n")
            assert all(parts), f"{name}: expected rows on both sides, got {[len(part) for part in parts]}"
            for path, lines in zip(paths, parts, strict=True):
                write_text(path, "".join(lines))

    def pair(self) -> None:
        """Write `pairs/NAME.jsonl`; not below `data`, which the base is named by."""
        for name, own in self.arms.pairs.items():
            path = self.out / "pairs" / f"{name}.jsonl"
            if path.is_file():
                continue
            rows = (row for text in own.paths for row in read_rows(self.base / text))
            found = [pair for row in rows for pair in pairs_of(str(row.values["text"]))]
            found = swapped(found, own.swapped or 0.0)
            told = [{"question": question, "answer": answer} for question, answer in found]
            write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in told))

    def heal(self) -> None:
        """Train the base, once, and tell whether its slices are flat."""
        if not self.model.is_dir():
            self._base_run()
            self.command("train", self.healed, "--base", self.base, "--name", "plain")
        lines = (self.healed / "checkpoints" / "plain" / "guard.jsonl").read_text("utf-8").splitlines()
        found = [json.loads(line) for line in lines]
        for line in found:
            rates = "  ".join(f"{name} {value:.4f}" for name, value in line["bits_per_byte"].items())
            print(f"{line['tokens']:>10,} tokens  {rates}")
        moved = {name: value - found[-2]["bits_per_byte"][name] for name, value in found[-1]["bits_per_byte"].items()}
        worst = max(moved, key=lambda name: abs(moved[name]))
        is_flat = abs(moved[worst]) <= self.arms.flat
        told = "flat" if is_flat else f"not flat: raise `token_budget` in {self.arms.heal}"
        print(f"base: {self.model}\nlast change: {worst} {moved[worst]:+.4f}, allowed {self.arms.flat:g}: {told}")

    def command(self, *words: object, may_fail: bool = False) -> str:
        """What a command of `mixer` wrote.

        Raises:
            SystemExit: It failed; with its exit code.
        """
        texts = [str(word) for word in words]
        print(f"$ mixer {shlex.join(texts)}", flush=True)
        code, written = self.mixer(texts)
        if code and not (may_fail and code == GATE_FAILED):
            sys.exit(code)
        return written

    def result(self, name: str, rate: float, seed: int) -> Path:
        return self.out / f"results-{self.key}" / f"{frontier.training_of(name, rate)}-s{seed}.json"

    def build(self, names: Sequence[str]) -> None:
        """Build what the base and the arms train on; of all arms, without a base, those that it writes nothing for."""
        self._base_run()
        self.pair()
        for name in names or self.arms.arms:
            arm = self.arms.arms[name]
            if not names and self._lacks_base(arm.data):
                print(f"{name}: not built, the base writes some of its text: `heal` first")
                continue
            for seed in arm.seeds:
                self._built(arm.data, seed)

    def run(self, names: Sequence[str]) -> None:
        """Train and measure arms; the best rate is chosen by the first seed's gain."""
        if not self.model.is_dir():
            sys.exit("there is no base: run `heal` first")
        self.build(names)
        for name in names or self.arms.arms:
            arm = self.arms.arms[name]
            first, *others = arm.seeds
            for rate in arm.rates or (self.best_rate(name),):
                self._one(name, rate, first)
            for seed in others:
                self._one(name, self.best_rate(name), seed)

    def best_rate(self, name: str) -> float:
        """The rate with the greatest gain on domain text, whatever it forgot.

        Of the control, and of an arm that names no rates, it is the reference's.
        """
        if name == self.arms.control or not self.arms.arms[name].rates:
            name = self.arms.reference
        arm = self.arms.arms[name]
        if lacking := [rate for rate in arm.rates if not self.result(name, rate, arm.seeds[0]).is_file()]:
            sys.exit(f"the best rate of `{name}` is wanted, and {lacking[0]:g} was not run: `run {name}` first")
        gains = {rate: self.reading(name, rate, arm.seeds[0])["gain"] for rate in arm.rates}
        return max(gains, key=lambda rate: gains[rate])

    def reading(self, name: str, rate: float, seed: int) -> dict:
        found = read_json(self.result(name, rate, seed))
        assert found is not None, f"{name} at {rate:g} with seed {seed}: expected a result, got none"
        return found

    def _one(self, name: str, rate: float, seed: int) -> None:
        """Train an arm, once (`_tidy` leaves no checkpoint of it), and measure what was not measured yet."""
        path, arm = self.result(name, rate, seed), self.arms.arms[name]
        own = arm.model_dump(mode="json", exclude={"rates", "seeds", "mix"})
        asked = digest([self._recipe(arm.data, seed).model_dump(mode="json"), own])
        before = read_json(path) or {}
        if before.get("asked", asked) != asked:
            sys.exit(f"{path}: got a result of another recipe or arm; remove it, and `run {name}` measures anew")
        mixed = before.get("interpolated", {})
        shares = [share for share in arm.mix if digits_of(share) not in mixed]
        if before and not shares:
            return
        run, training = self._built(arm.data, seed), frontier.training_of(name, rate)
        told = ["--base", self.base, "--name", training, "--set", f"train.model={self.model}"]
        more = [word for override in (f"train.learning_rate={rate}", *arm.set) for word in ("--set", override)]
        if not before or not (run / "checkpoints" / training / "final").is_dir():
            self.command("train", run, *told, "--method", arm.method, *more)
        mixes = [word for share in shares for word in ("--mix", share)]
        report = json.loads(self.command("retention", run, *told, *mixes, "--json", may_fail=True))
        [found] = report["trainings"].values()
        origin = {"arm": name, "rate": rate, "seed": seed, "data": arm.data, "method": arm.method, "asked": asked}
        write_json(path, found | origin | {"interpolated": mixed | found.get("interpolated", {})})
        self._tidy(run, training)

    def _base_run(self) -> None:
        if not (self.healed / "manifest.json").is_file():
            self.command("build", self.base / self.arms.heal, "--run", self.healed)

    def _built(self, data: str, seed: int) -> Path:
        run = self.out / f"{data}-s{seed}-{self.key}"
        if not (run / "manifest.json").is_file():
            if self._lacks_base(data):
                sys.exit(f"the base writes some of the text of `{data}`, and there is no base: run `heal` first")
            more = [word for override in self._overrides(data, seed) for word in ("--set", override)]
            self.command("build", self.base / self.arms.recipe, "--run", run, *more)
        elif load(run / "recipe.yaml") != self._recipe(data, seed):
            sys.exit(f"{run}: got a Run of another recipe than `{data}` is now; remove it, or name another `out`")
        cache = run / "retention" / "cache"
        if not cache.exists():
            # One for all: the base is then measured once, and not again for each mixture of the text.
            (readings := self.out / "readings").mkdir(exist_ok=True)
            cache.parent.mkdir(exist_ok=True)
            cache.symlink_to(readings.resolve())
        return run

    def _overrides(self, data: str, seed: int) -> list[str]:
        return [f"seed={seed}", *(text.replace(BASE, str(self.model)) for text in self.arms.data[data])]

    def _recipe(self, data: str, seed: int) -> Recipe:
        return load(self.base / self.arms.recipe, overrides=self._overrides(data, seed))

    def _lacks_base(self, data: str) -> bool:
        return any(BASE in override for override in self.arms.data[data]) and not self.model.is_dir()

    def _tidy(self, run: Path, training: str) -> None:
        """Remove what only a resume needs, and weights that were measured: gigabytes a training."""
        for path in (run / "checkpoints" / training).glob("step-*"):
            shutil.rmtree(path)
        for path in (run / "retention" / "interpolated").glob(f"{training}-*"):
            shutil.rmtree(path)

    def report(self, *, of_guards: bool = False) -> None:
        """Write a table, the same as JSON, and the figure, from all results that are there.

        Args:
            of_guards: From what the guard measured at the end of each training, instead of what `mixer retention` told.
        """
        if of_guards:
            found = frontier.results_of_guards(sorted(self.out.glob(f"*-{self.key}")))
        else:
            paths = sorted(self.result("x", 1, 1).parent.glob("*.json"))
            found = [json.loads(path.read_text("utf-8")) for path in paths]
        if not found:
            sys.exit("there are no results: run `run` first")
        points = frontier.points_of(found)
        rows = frontier.compared(points, reference=self.arms.reference, control=self.arms.control)
        name, figure = ("guards", "guards") if of_guards else ("report", "frontier")
        write_json(self.out / f"{name}.json", rows)
        write_text(self.out / f"{name}.md", text := frontier.table(rows))
        frontier.draw(points, self.out / f"{figure}.svg")
        print(f"{text}\nall of it is in {self.out}: {name}.md, {name}.json, {figure}.svg")


def on_this_machine(words: Sequence[str]) -> tuple[int, str]:
    """A command in a process of its own, which gives all memory back."""
    done = subprocess.run([sys.executable, "-m", "mixer.cli", *words], stdout=subprocess.PIPE, text=True, check=False)
    return done.returncode, done.stdout


def open_lab(path: Path, *, mixer: Mixer = on_this_machine) -> Lab:
    return Lab(Arms.model_validate(yaml.safe_load(path.read_text("utf-8"))), path.parent.resolve(), mixer)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("step", choices=["build", "heal", "run", "report"])
    parser.add_argument("names", nargs="*", metavar="ARM")
    parser.add_argument("--arms", type=Path, default=Path(__file__).with_name("arms.yaml"))
    parser.add_argument("--guards", action="store_true", help="report what guards measured while arms trained")
    asked = parser.parse_intermixed_args()  # names may follow `--arms FILE`
    if asked.guards and asked.step != "report":
        parser.error(f"got --guards with {asked.step}, expected it with report")
    if asked.names and asked.step in ("heal", "report"):
        parser.error(f"got arms with {asked.step}, expected none: it is of all")
    lab = open_lab(asked.arms)
    if odd := [name for name in asked.names if name not in lab.arms.arms]:
        parser.error(f"got the arm {odd[0]!r}, expected one of {', '.join(lab.arms.arms)}")
    steps = {
        "build": lambda: lab.build(asked.names),
        "heal": lab.heal,
        "run": lambda: lab.run(asked.names),
        "report": lambda: lab.report(of_guards=asked.guards),
    }
    steps[asked.step]()


if __name__ == "__main__":
    main()
