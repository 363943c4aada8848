"""Rounds in a closed loop: a training's own losses plan its next round, and choose what it trains on again."""

import json
from pathlib import Path

from curricula.rounds import adapt, next_round, resample
from mixer.errors import RecipeError, SourceError
from mixer.mixture import source_of
from mixer.plan import round_name
from mixer.pools import topic_sources
from mixer.replan import held_out_pools, open_run, plan_of, pools_of_run
from mixer.steps import Say
from mixer.types import Plan


def before_stage(run: Path, training: Path, name: str, *, say: Say) -> None:
    """Make a stage's order, where it follows from what was trained on: a later round, or hard sequences again.

    The rounds of a Run are planned once, by the first training that gets there; others train on the same ones.

    Args:
        run: The Run.
        training: A folder of its `checkpoints/`, with `validation.jsonl` and `losses/`.
        name: The stage of the plan that comes next.
        say: Takes a line for people.
    """
    recipe = open_run(run)
    planned = plan_of(run, recipe, pools_of_run(run, recipe), say)
    place = [stage.name for stage in planned.stages].index(name)
    stage = planned.stages[place]
    if stage.resample is not None and not (run / "order" / f"{name}.npy").is_file():
        resample(run, training / "losses", only=name, say=say)
    pending = next_round(run, recipe, say)
    if stage.round and pending and name == round_name(*pending):
        found = adapt(run, *validated_around(run, training, say=say), method=training.name, say=say)
        told = ", ".join(f"{one.pool} {one.share_before:.3f} -> {one.share_now:.3f}" for one in found.changes)
        say(f"{name}: {told}")


def validated_around(run: Path, training: Path, *, say: Say) -> list[dict[str, float]]:
    """The validation losses of a training at both ends of the round before the next one to be planned.

    Raises:
        RecipeError: No round is left to be planned.
        SourceError: There was no validation then.
    """
    recipe = open_run(run)
    planned = plan_of(run, recipe, pools_of_run(run, recipe), say)
    pending = next_round(run, recipe, say)
    if pending is None:
        raise RecipeError(f"{run}: got no round that is still to be planned, expected a stage with `adapt`")
    place = [stage.name for stage in planned.stages].index(round_name(*pending))
    return _validated(training, *(_tokens_before(planned, at) for at in (place - 1, place)))


def _tokens_before(planned: Plan, place: int) -> int:
    return sum(stage.sequences for stage in planned.stages[:place]) * planned.sequence_length


def _validated(training: Path, *tokens: int) -> list[dict[str, float]]:
    """The validation losses at these numbers of tokens seen.

    Raises:
        SourceError: There was no validation then.
    """
    path = training / "validation.jsonl"
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.is_file() else []
    by_tokens = {line["tokens"]: line["losses"] for line in lines}
    lacking = [seen for seen in tokens if seen not in by_tokens]
    if lacking:
        raise SourceError(
            f"{path}: got no losses at {lacking[0]:,} tokens seen, expected some at both ends of the round",
            hint="hold documents out with `validation: {}`, build, and train again",
        )
    return [
        {f"{one['source']}/{one['topic']}": one["loss"] for one in by_tokens[seen] if one["topic"]} for seen in tokens
    ]


def check_validation(run: Path, *, say: Say) -> None:
    """Refuse to train a stage of rounds whose topics have nothing held out, before the first round is trained.

    Raises:
        RecipeError: A topic has no held-out sequence.
    """
    recipe = open_run(run)
    planned = plan_of(run, recipe, pools_of_run(run, recipe), say)
    for stage in recipe.mixed_stages:
        sources = (stage.adapt.sources or topic_sources(stage)) if stage.adapt else ()
        drawn = next(each for each in planned.stages if each.stage == stage.name).sources
        held = {pool for source in sources for pool in held_out_pools(run, source)}
        lacking = [pool for pool in drawn if source_of(pool) in sources and pool not in held]
        if lacking:
            raise RecipeError(
                f"stages.{stage.name}.adapt: got nothing held out of {', '.join(lacking)}, expected some of each topic",
                hint="add `validation: {sequences: 16}` (at most a twentieth of a topic goes), or more documents",
            )
