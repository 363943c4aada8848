"""What only the whole recipe shows to be wrong with its models and synthetic sources; reads the plain tree."""

from collections.abc import Iterator, Mapping
from typing import Any

from mixer.recipe.section import PACKAGED
from mixer.recipe.synth import Model, Verify
from mixer.recipe.tree import members_of
from mixer.recipe.yaml import Problem, Spot, show

CHECKS = (
    *("format", "restated", "copied", "evidence", "answer_in_page", "grounded", "on_page", "near_answer"),
    *("standalone", "relevance", "votes", "support", "novel"),
)
"""Names of the checks of `science_qa`, which `verify.thresholds` may set."""

_KEY = "[key]"
_SERVER_KEYS = ("tensor_parallel", "data_parallel", "dtype", "eager", "arguments", "max_model_len")


def find(tree: Mapping[str, Any], unknown: Any) -> Iterator[Problem]:
    """Problems between sections.

    Args:
        tree: The recipe as plain values.
        unknown: Words for a name that nobody knows; `mixer.recipe.problems.unknown`.
    """
    sources, models, synth = (members_of(tree, key) for key in ("sources", "models", "synth"))
    synthetic = {name: source for name, source in sources.items() if source.get("kind") == "synth"}
    yield from _sources(sources, synthetic, synth, unknown)
    yield from _tasks(synth, synthetic, models, unknown)
    teachers = [score.get("teacher") for score in members_of(tree, "scores").values()]
    users = [*synth.values(), *(teacher for teacher in teachers if isinstance(teacher, dict))]
    used = [user.get("model") for user in users]
    for name, model in models.items():
        yield from _model(("models", name), model)
        if name not in used:
            yield Problem(("models", name), f"model `{name}` is used by no task; remove it", ("models", name, _KEY))


def _sources(
    sources: Mapping[str, Any], synthetic: Mapping[str, Any], synth: Mapping[str, Any], unknown: Any
) -> Iterator[Problem]:
    pages = [name for name in sources if name not in synthetic]
    for name, source in synthetic.items():
        spot: Spot = ("sources", name)
        origin, task = source.get("from"), source.get("task")
        if isinstance(origin, str) and origin in synthetic:
            told = f"got {show(origin)}, expected a source that is read, not one that is written"
            yield Problem((*spot, "from"), told, (*spot, "from"))
        elif isinstance(origin, str) and origin not in sources:
            yield Problem((*spot, "from"), unknown("source", origin, pages, plural="sources"), (*spot, "from"))
        if isinstance(task, str) and task not in synth:
            told = f"task {show(task)} has no settings, expected `synth: {{{task}: {{model: ...}}}}`"
            yield Problem((*spot, "task"), told, (*spot, "task"))


def _tasks(
    synth: Mapping[str, Any], synthetic: Mapping[str, Any], models: Mapping[str, Any], unknown: Any
) -> Iterator[Problem]:
    wanted = [source.get("task") for source in synthetic.values()]
    for name, task in synth.items():
        spot: Spot = ("synth", name)
        if name not in wanted:
            told = f"has no effect: no source has `task: {name}`; add one or remove this"
            yield Problem(spot, told, (*spot, _KEY))
        model = task.get("model")
        if isinstance(model, str) and model not in models:
            yield Problem((*spot, "model"), unknown("model", model, list(models), plural="models"), (*spot, "model"))
        rules = task.get("verify")
        if isinstance(rules, dict):
            yield from _verify((*spot, "verify"), rules, unknown)
        if task.get("grounding") == "inspiration":
            yield from _idle_without_page(spot, task, rules if isinstance(rules, dict) else {})


def _idle_without_page(spot: Spot, task: Mapping[str, Any], rules: Mapping[str, Any]) -> Iterator[Problem]:
    """What asks for a page to hold the answer against, where the page only sets the subject."""
    idle: list[Spot] = [(*spot, "verify", key) for key in ("grounded", "support", "novel") if rules.get(key) is True]
    for where in [(*spot, "answers"), *idle] if "answers" in task else idle:
        told = "has no effect with `grounding: inspiration`, where no page holds the answer; remove it"
        yield Problem(where, told, (*where, _KEY))


def _verify(spot: Spot, rules: Mapping[str, Any], unknown: Any) -> Iterator[Problem]:
    votes = rules.get("votes", Verify.model_fields["votes"].default)
    agree = rules.get("agree", Verify.model_fields["agree"].default)
    whole = isinstance(votes, int) and isinstance(agree, int)
    if whole and 0 < votes < agree:
        yield Problem((*spot, "agree"), f"got {agree}, expected at most the {votes} votes", (*spot, "agree"))
    if votes == 0 and rules.get("novel") is True:
        yield Problem((*spot, "novel"), "has no effect without votes; set `votes` or remove it", (*spot, "novel", _KEY))
    thresholds = rules.get("thresholds")
    for name in thresholds if isinstance(thresholds, dict) else ():
        if name not in CHECKS:
            told = unknown("check", str(name), list(CHECKS), plural="checks")
            yield Problem((*spot, "thresholds"), told, (*spot, "thresholds", name, _KEY))


def _model(spot: Spot, model: Mapping[str, Any]) -> Iterator[Problem]:
    path, endpoint = model.get("path"), model.get("endpoint")
    if (path is None) == (endpoint is None):
        yield Problem(spot, "expected either `path` or `endpoint`", spot)
        return
    if path is not None:
        idle = ["name", "key_env", *(["revision"] if path == PACKAGED else [])]
        where = "for the packaged model" if path == PACKAGED else "without `endpoint`"
    else:
        idle, where = list(_SERVER_KEYS), "on a server that is not ours"
        if model.get("name") is None:
            yield Problem(spot, "missing key `name`: what the endpoint calls the model", (*spot, "name"))
    for key in idle:
        default = Model.model_fields[key].default
        if key in model and model[key] != (list(default) if isinstance(default, tuple) else default):
            yield Problem((*spot, key), f"has no effect {where}; remove it", (*spot, key, _KEY))
