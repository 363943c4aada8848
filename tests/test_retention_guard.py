"""The guard in the loop: a bad run on a model that knows something, caught, stopped, or brought back by more replay."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from curricula.parallel import world
from curricula.retention.guard import open_guard, replay_sources
from curricula.retention.pieces import Pieces, bits_of
from curricula.retention.raised import stock_of
from curricula.train import train
from mixer.cli import app
from mixer.errors import CheckpointError
from mixer.orders import orders_of
from mixer.recipe.file import load
from tests import toys, training
from tests.tiny_model import tiny_model

LIMIT = 0.5
GUARD = {"every": 640, "first_steps": [], "max_documents": 12, "replay": ["old"], "raise_by": 0.5}
RETENTION = {
    "slices": {
        "old": {"path": "old-held.jsonl", "min_bytes": 20},
        "new": {"path": "new-held.jsonl", "min_bytes": 20, "kind": "domain"},
    },
    "window": 128,
    "max_forgetting": LIMIT,
    "replicates": 200,
    "probes": False,
    "guard": GUARD,
}
STAGES = [
    {"name": "bad", "token_budget": 19_200, "mixture": {"new": 1}},
    {"name": "last", "token_budget": 3200, "mixture": {"new": 1}},
]


def numbers(seed: int) -> str:
    """Text of another kind than sentences."""
    rng = np.random.default_rng(seed)
    return " + ".join(str(1000 + 7 * int(n)) for n in rng.integers(0, 60, 40))


def encoded(folder: Path, text: str) -> list[int]:
    """Ids behind the frame token."""
    return [256, *Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text, add_special_tokens=False).ids]


def teach(folder: Path, texts: list[str]) -> None:
    """Train the tiny model on texts until it knows their kind; what a base model is."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.tensor([token for text in texts for token in encoded(folder, text)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(250):
        starts = torch.randint(0, len(ids) - 65, (16,), generator=generator)
        batch = torch.stack([ids[start : start + 64] for start in starts])
        model(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A base that knows sentences, and a Run that teaches it numbers alone at a high rate."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("guarded")
    for name, text in (("old", lambda n: toys.sentences(n, 6)), ("new", numbers)):
        for part, seeds in (("", range(260)), ("-held", range(1000, 1012))):
            rows = [json.dumps({"text": text(seed)}) for seed in seeds]
            (folder / f"{name}{part}.jsonl").write_text("\n".join(rows))
    sources = {name: {"kind": "jsonl", "path": f"{name}.jsonl", "language": "en"} for name in ("old", "new")}
    settings = training.TRAIN | {"learning_rate": 1.0e-2, "model": "taught"}
    teach(tiny_model(folder / "taught"), [toys.sentences(5000 + n, 6) for n in range(200)])
    training.build_run(folder, sources=sources, stages=STAGES, train=settings, retention=RETENTION)
    return folder


def guarded(folder: Path, name: str, *overrides: str, said: list[str] | None = None, **hooks):
    """Train with the recipe's guard, on one thread."""
    torch.set_num_threads(1)
    lines = said if said is not None else []
    recipe = load(folder / "run/recipe.yaml", overrides=overrides)
    with world(device="cpu") as here:
        own = training.job(folder, name, *overrides)

        def watched(bench):
            where = {"run": folder / "run", "recipe": recipe, "base": folder}
            return open_guard(own, bench, **where, world=here, say=lines.append)

        return train(own, world=here, say=lines.append, watched=watched, **hooks)


def lines(folder: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (folder / "run/checkpoints" / name / "guard.jsonl").read_text().splitlines()]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def mixer(folder: Path, *arguments: object):
    command = [*arguments[:1], folder / "run", "--base", folder, *arguments[1:]]
    return CliRunner(env={"XDG_CACHE_HOME": str(folder / "cache")}).invoke(app, [str(word) for word in command])


@pytest.mark.parametrize(
    "mixture", ["{group: {weight: 1, mixture: {old: 1}}}", "{temperature: 2.0, sources: [old]}", "{old: 1}"]
)
def test_replay_is_found_in_groups_and_presets_and_drawn_by_the_runs_own_seed(built, mixture):
    overrides = [f"stages.bad.replay={{share: 0.1, mixture: {mixture}}}", "seed=99"]
    recipe = load(built / "run/recipe.yaml", overrides=overrides)
    assert replay_sources(recipe) == ["old"]
    assert recipe.seed == 99
    assert stock_of(built / "run", recipe).seed == load(built / "run/recipe.yaml").seed


def test_the_loops_own_measure_is_that_of_the_command(built):
    """Bits of documents packed side by side are those of each alone, as `mixer retention` reads them."""
    from curricula.objective import Objective
    from curricula.retention.measure import Subject, read_slices
    from curricula.retention.slices import Texts

    found = [json.loads(line)["text"] for line in (built / "old-held.jsonl").read_text().splitlines()]
    model = AutoModelForCausalLM.from_pretrained(built / "taught", dtype=torch.float32)
    ids = [np.array(encoded(built / "taught", text)) for text in found]
    assert any(len(own) > 129 for own in ids)
    pieces = Pieces(ids, 128)
    with world(device="cpu") as here:
        objective = Objective(model, dtype=torch.float32, is_sharded=False)
        bits = bits_of(objective, pieces, world=here, micro_batch=3)
    own = Texts("old", "general", tuple(map(str, range(len(found)))), tuple(found))
    subject = Subject(built / "taught", store=built / "store", device="cpu")
    subject.__dict__["model"] = model.eval()
    alone = read_slices(subject, [own], window=127, cache=built / "cache-bits")["old"].bits
    assert bits == pytest.approx(alone, rel=1e-5)


@pytest.fixture(scope="module")
def warned(built, tmp_path_factory):
    """The bad run to its end, with warnings alone."""
    folder, said = training.copied(built, tmp_path_factory.mktemp("warned")), []
    guarded(folder, "bad", said=said)
    return folder, said


def test_a_bad_run_is_seen_and_its_gate_ends_with_exit_code_3(warned):
    folder, said = warned
    found = lines(folder, "bad")
    assert found[0]["step"] == 0
    assert found[-1]["lost"]["old"]["least"] > LIMIT
    assert found[-1]["lost"]["new"]["value"] < 0
    assert any(line.startswith("guard: step") and line.endswith(": warn") for line in said)
    done = mixer(folder, "retention", "--name", "bad")
    assert done.exit_code == 3, done.output
    assert "old lost" in done.stdout


def test_watching_changes_nothing(warned, built, tmp_path):
    folder = training.copied(built, tmp_path)
    training.run(folder, "alone")
    ours, theirs = weights(warned[0] / "run/checkpoints/bad/final"), weights(folder / "run/checkpoints/alone/final")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.fixture(scope="module")
def brought_back(built, tmp_path_factory):
    """The same run with more replay whenever too much is lost."""
    folder, said = training.copied(built, tmp_path_factory.mktemp("raised")), []
    guarded(folder, "bad", "retention.guard.on_forgetting=raise_replay", said=said)
    return folder, said


def test_more_replay_brings_the_bad_run_back_under_the_limit(brought_back):
    folder, said = brought_back
    found = lines(folder, "bad")
    actions = [line["action"] for line in found]
    assert "raise_replay" in actions
    assert max(line["lost"]["old"]["value"] for line in found if line["lost"]) > LIMIT
    assert found[-1]["lost"]["old"]["most"] <= LIMIT
    assert found[-1]["gain"] > 0.5
    assert any("old 0.000 -> 0.500" in line for line in said)
    done = mixer(folder, "retention", "--name", "bad")
    assert done.exit_code == 0, done.output


def test_a_trace_tells_what_the_training_took_and_not_what_was_planned_before(brought_back):
    folder, _ = brought_back
    run = folder / "run"
    stages = [stage["name"] for stage in json.loads((run / "plan.json").read_text())["stages"]]
    built = {name: np.load(run / "order" / f"{name}.npy") for name in stages}
    taken = {name: np.load(path) for name, path in orders_of(run, "bad").items()}
    stage, index = next((name, row) for name in stages for row in np.flatnonzero((built[name] != taken[name]).any(1)))
    sources = list(yaml.safe_load((run / "recipe.yaml").read_text())["sources"])
    for orders, more in ((built, ()), (taken, ("--name", "bad"))):
        command = ["trace", run, "--base", folder, "--stage", stage, "--index", index, "--json", *more]
        done = CliRunner().invoke(app, [str(word) for word in command])
        assert done.exit_code == 0, done.output
        told = json.loads(done.stdout)
        assert (sources.index(told["source"]), told["sequence"]) == tuple(orders[stage][index])
    assert sum(len(rows) for rows in built.values()) == sum(len(rows) for rows in taken.values())
    odd = CliRunner().invoke(app, ["why", str(run), "x", "--name", "../bad"])
    assert odd.exit_code == 2
    assert "--name: got '../bad', expected one of bad" in odd.stderr


def test_the_best_model_is_that_of_the_most_gain_within_the_limit(brought_back):
    folder, _ = brought_back
    found = [line for line in lines(folder, "bad") if line["action"] == "best"]
    assert found[-1]["gain"] == max(line["gain"] for line in found)
    record = json.loads((folder / "run/checkpoints/bad/best.json").read_text())
    assert (record["step"], record["gain"]) == (found[-1]["step"], found[-1]["gain"])
    done = mixer(folder, "retention", "--name", "bad/best", "--json")
    assert done.exit_code == 0, done.output
    gain = json.loads(done.stdout)["trainings"]["bad/best"]["gain"]
    assert gain == pytest.approx(found[-1]["gain"], rel=0.05)


@pytest.mark.parametrize("at", [7, 16])
def test_a_resume_is_exact_to_the_last_bit_after_replay_was_raised(brought_back, built, tmp_path, at):
    class Killed(Exception):
        pass

    def kill(_, state):
        if state.step == at:
            raise Killed

    folder = training.copied(built, tmp_path)
    overrides = "retention.guard.on_forgetting=raise_replay", "train.checkpoint_every=1920"
    with pytest.raises(Killed):
        guarded(folder, "bad", *overrides, after_step=kill)
    guarded(folder, "bad", *overrides)
    ours, theirs = (weights(each / "run/checkpoints/bad/final") for each in (folder, brought_back[0]))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert lines(folder, "bad") == lines(brought_back[0], "bad")


def test_it_stops_with_a_model_and_stays_stopped(built, tmp_path):
    folder = training.copied(built, tmp_path)
    overrides = ["--name", "cut", "--set", "retention.guard.on_forgetting=stop"]
    done = mixer(folder, "train", *overrides)
    assert done.exit_code == 3, done.output
    assert (folder / "run/checkpoints/cut/final/model.safetensors").is_file()
    before = lines(folder, "cut")
    assert before[-1]["action"] == "stop"
    assert mixer(folder, "train", *overrides).exit_code == 3
    assert lines(folder, "cut") == before
    assert mixer(folder, "train", "--name", "cut").exit_code == 0, "with `warn` it goes on where it was stopped"
    assert lines(folder, "cut")[: len(before)] == before
    assert lines(folder, "cut")[-1]["action"] == "warn"


def test_a_guard_that_comes_late_or_with_other_slices_is_refused(warned, tmp_path):
    folder = training.copied(warned[0], tmp_path)
    with pytest.raises(CheckpointError, match="got readings of other slices than the guard's"):
        guarded(folder, "bad", "retention.guard.slices=[old]")
    (folder / "run/checkpoints/bad/guard-first.parquet").unlink()
    with pytest.raises(CheckpointError, match="expected what the first model needed"):
        guarded(folder, "bad")
