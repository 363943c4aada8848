"""The trainer's side: every configuration renders, parses, and says what the files hold."""

import ast
import json
import subprocess
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import yaml

from mixer.exports.export import export
from mixer.exports.policy import POLICIES
from mixer.exports.verify import verify
from mixer.recipe.exports import Export
from tests import toy_run

OPTIONS = [
    *({"format": name} for name in POLICIES),
    *({"format": name, "mode": "blended"} for name in POLICIES if name not in ("llmc", "arrow")),
    *({"format": name, "content": "text"} for name in ("parquet", "arrow")),
    {"format": "parquet", "content": "text", "mode": "blended"},
    {"format": "megatron", "shuffle_seed": None},
]


def configuration(tmp_path: Path, packing: str = "concat_and_chunk", **options) -> Path:
    recipe = toy_run.make(tmp_path / "run", packing=packing)
    export(tmp_path / "run", recipe, Export(**options), tmp_path / "out", say=print)
    return tmp_path / "out" / "config"


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(map(str, o.values())))
def test_every_configuration_parses_and_shows_the_stages(tmp_path, options):
    files = sorted(configuration(tmp_path, **options).iterdir())
    assert files
    for path in files:
        text = path.read_text()
        if path.suffix == ".py":
            compile(text, path.name, "exec")
        elif path.suffix == ".yaml":
            yaml.safe_load(text)
        elif path.suffix == ".json":
            json.loads(text)
        else:
            subprocess.run(["bash", "-n", str(path)], check=True)
        if path.suffix != ".json":
            assert "anneal                        10            5                80                40" in text


def test_megatrons_arguments_name_the_seed_the_samples_and_the_prefix(tmp_path):
    script = configuration(tmp_path, format="megatron") / "args.sh"
    words = subprocess.run(
        ["bash", "-c", f'. "{script}"; printf "%s\n" "${{STAGE_ARGS[@]}}"'], check=True, capture_output=True, text=True
    ).stdout.split("\n")
    said = dict(pairwise(words))
    assert said["--seed"] == "1234"
    assert said["--train-samples"] == "15"
    assert said["--seq-length"] == "8"
    assert Path(said["--data-path"] + ".idx").is_file()


def test_megatrons_blend_alternates_weights_and_prefixes_a_file_a_stage(tmp_path):
    config = configuration(tmp_path, format="megatron", mode="blended")
    found = json.loads((config / "per_split.adapt.json").read_text())
    assert found == {"train": ["0.5", "web", "0.5", "books"], "valid": None, "test": None}
    words = subprocess.run(
        ["bash", "-c", f'. "{config / "args.sh"}"; printf "%s\n" "${{STAGE_1_ARGS[@]}}"'],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    at = words.index("--data-path")
    assert [Path(word).name for word in words[at + 1 :]] == ["0.4", "web", "0.6", "books"]


def test_llm_foundrys_streams_are_exact_counts_and_the_order_is_not_shuffled(tmp_path):
    loader = yaml.safe_load((configuration(tmp_path, format="mds") / "streams.yaml").read_text())["train_loader"]
    assert loader["dataset"] == {
        "streams": {"premixed": {"local": "./premixed"}},
        "shuffle": False,
        "num_canonical_nodes": 1,
        "max_seq_len": 8,
        "eos_token_id": 0,
    }


def test_nanotrons_stages_start_where_the_steps_of_the_ones_before_end(tmp_path):
    path = configuration(tmp_path, format="nanotron", batch_sequences=2) / "data_stages.yaml"
    config = yaml.safe_load(path.read_text())
    assert config["tokens"] == {"sequence_length": 7}
    assert [
        (stage["name"], stage["start_training_step"], stage["data"]["seed"]) for stage in config["data_stages"]
    ] == [
        ("adapt", 1, 1234),
        ("anneal", 6, 1234),
    ]
    assert [stage["data"]["dataset"]["dataset_folder"] for stage in config["data_stages"]] == [
        ["./00-adapt"],
        ["./01-anneal"],
    ]


def test_the_prediction_of_a_blend_stands_in_its_configuration(tmp_path):
    text = (configuration(tmp_path, format="litdata", mode="blended") / "litgpt_data.py").read_text()
    assert "(independent draws, seed 42, one worker), stage by stage" in text
    assert "adapt           web              planned          5 ( 50.00 %)   becomes" in text


def test_a_source_whose_name_begins_as_anothers_is_not_read_with_it(tmp_path):
    recipe = toy_run.make(tmp_path / "run", documents={"web": toy_run.WEB, "web-books": toy_run.BOOKS})
    for name in ("parquet", "webdataset", "olmo"):
        record = export(
            tmp_path / "run", recipe, Export(format=name, mode="blended"), tmp_path / name, say=lambda _: None
        )
        files = files_of_configuration(tmp_path / name)
        assert {source: [file.rpartition("-")[0] for file in its] for source, its in files.items()} == {
            "web": ["web"],
            "web-books": ["web-books"],
        }
        assert set(files) == set(record["sets"])


def files_of_configuration(target: Path) -> dict[str, list[str]]:
    """FILES of the configuration in Python, which only a trainer's environment could import."""
    [path] = (target / "config").glob("*.py")
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FILES":
            return ast.literal_eval(node.value)
    raise AssertionError(path)


def test_llama_factory_and_axolotl_are_told_of_every_file(tmp_path):
    config = configuration(tmp_path, format="jsonl", file_bytes=100)
    written = sorted(path.name for path in (tmp_path / "out").glob("*.jsonl"))
    assert len(written) > 4
    told = json.loads((config / "dataset_info.json").read_text())
    assert [each["file_name"] for each in told.values()] == written
    llama = yaml.safe_load((config / "llamafactory.yaml").read_text())
    assert llama["dataset"].split(",") == list(told)
    axolotl = (config / "axolotl.yaml").read_text()
    assert all(f'"{name}"' in axolotl for name in written)


def test_a_blend_of_lines_is_one_file_a_source(tmp_path):
    config = configuration(tmp_path, format="jsonl", mode="blended")
    told = json.loads((config / "dataset_info.json").read_text())
    assert {name: each["file_name"] for name, each in told.items()} == {
        "web": "web-00000.jsonl",
        "books": "books-00000.jsonl",
    }


def test_a_hundred_stages_are_read_in_their_order(tmp_path):
    orders = {f"s{i}": [(0, i % 5)] for i in range(101)}
    recipe = toy_run.make(tmp_path / "run", orders=orders)
    for name in ("olmo", "nanotron"):
        export(tmp_path / "run", recipe, Export(format=name), tmp_path / name, say=lambda _: None)
    assert [path.name.split("-")[1] for path in sorted((tmp_path / "olmo").glob("*.npy"))] == list(orders)
    assert [files[0].split("-")[1] for files in files_of_configuration(tmp_path / "olmo").values()] == list(orders)
    stages = yaml.safe_load((tmp_path / "nanotron" / "config" / "data_stages.yaml").read_text())["data_stages"]
    folders = [stage["data"]["dataset"]["dataset_folder"][0] for stage in stages]
    assert all((tmp_path / "nanotron" / folder).is_dir() for folder in folders)


def test_a_stage_that_begins_within_a_step_is_warned_of(tmp_path):
    recipe = toy_run.make(tmp_path / "run")
    wanted = Export(format="nanotron", batch_sequences=4)
    warnings = export(tmp_path / "run", recipe, wanted, tmp_path / "out", say=lambda _: None)["warnings"]
    assert warnings == [
        "stage `anneal` begins within a step of 4 sequences: nanotron begins it 2 earlier, and the last of the stage"
        " before are left out"
    ]


def test_a_stage_in_which_no_document_begins_is_empty_and_left_out(tmp_path):
    documents, orders = {"web": [[*range(5, 30), 0]]}, {"a": [(0, 0)], "b": [(0, 1), (0, 2)]}
    recipe = toy_run.make(tmp_path / "run", documents=documents, orders=orders)
    for name, options in (("jsonl", {}), ("parquet", {"content": "text"}), ("arrow", {"content": "text"})):
        wanted = Export(format=name, **options)
        record = export(tmp_path / "run", recipe, wanted, tmp_path / name, say=lambda _: None)
        assert verify(tmp_path / "run", recipe, tmp_path / name)[0].documents == 1
        if name != "arrow":  # whose one set is all stages
            assert record["warnings"] == ["no document begins in set `01-b`: it is empty"]
    told = json.loads((tmp_path / "jsonl" / "config" / "dataset_info.json").read_text())
    assert list(told) == ["00-a-00000"]
    only = toy_run.make(tmp_path / "only", documents=documents, orders={"b": [(0, 1), (0, 2)]})
    export(tmp_path / "only", only, Export(format="arrow", content="text"), tmp_path / "empty", say=lambda _: None)
    assert [each.documents for each in verify(tmp_path / "only", only, tmp_path / "empty")] == [0]


def test_steps_of_a_blend_are_counted_stage_by_stage(tmp_path):
    for options in ({"format": "parquet"}, {"format": "olmo"}):
        folder = tmp_path / options["format"]
        [path] = configuration(folder, mode="blended", batch_sequences=4, **options).glob("*.py")
        text = path.read_text()
        if options["format"] == "parquet":
            assert '"max_steps"' not in text
            assert 'MAX_STEPS = {"adapt": 3, "anneal": 2}' in text
            assert 'ROWS = {"adapt": 10, "anneal": 5}' in text
        else:
            assert "GLOBAL_BATCH_SIZE = 32" in text


def test_torchtitans_source_is_as_long_as_a_mixture_needs(tmp_path):
    source, space = rows_of_torchtitan(tmp_path)
    whole = [source(rows=None)[i][0].tolist() for i in range(15)]
    twice = source(rows=30)
    assert [twice[i][0].tolist() for i in range(len(twice))] == whole * 2
    fewer = source(rows=5)
    assert [fewer[i][0].tolist() for i in range(len(fewer))] == whole[::3]
    assert space["LENGTH"] == 8


def rows_of_torchtitan(tmp_path):
    """The configuration's source of rows, by how many are wanted, and the names it stands on."""
    config = configuration(tmp_path, format="torchtitan")
    text = (config / "torchtitan_data.py").read_text()
    source = text[text.index("class Rows") : text.index("class ToSequence")]
    # The class stands on torchtitan's Configurable alone, which is not needed to read rows.
    alone = type("Configurable", (), {"Config": type("Config", (), {})})
    space = {"np": np, "dataclass": dataclass, "Configurable": alone, "HERE": config.parent, "LENGTH": 8}
    exec(source, space)
    kind = space["Rows"]
    return lambda **options: kind(kind.Config(folder="premixed", **options)), space


def test_torchtitans_source_starts_positions_anew_at_each_document(tmp_path):
    source, _ = rows_of_torchtitan(tmp_path)
    rows = source()
    plain = toy_run.rows(tmp_path / "run", toy_run.make(tmp_path / "again"))
    assert len(rows) == 15
    seen = 0
    for (ids, positions), expected in zip((rows[i] for i in range(15)), plain, strict=True):
        assert ids.tolist() == expected
        after = [0, *(end + 1 for end, i in enumerate(expected[:-1]) if i == 0)]
        assert [place for place in range(8) if positions[place] == 0] == after
        seen += len(after)
    assert seen > 15


def test_a_configuration_never_holds_the_path_of_the_machine(tmp_path):
    for number, options in enumerate(OPTIONS):
        folder = tmp_path / str(number)
        folder.mkdir()
        for path in configuration(folder, **options).iterdir():
            assert str(tmp_path) not in path.read_text(), path


@pytest.mark.parametrize("name", ["parquet", "webdataset", "olmo", "litdata", "torchtitan"])
def test_python_configuration_imports_nothing_of_ours(tmp_path, name):
    [path] = configuration(tmp_path, format=name).glob("*.py")
    imports = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {node.module if isinstance(node, ast.ImportFrom) else node.names[0].name for node in imports}
    assert names
    assert not any(str(name).startswith("mixer") for name in names)
