"""The last step of a build: the recipe's exports, each written once and skipped while nothing changed."""

import time

from mixer.context import Context
from mixer.run import keep_only
from mixer.shard import index_of


def export_all(context: Context) -> None:
    """Write `exports/` of the Run as the recipe asks, and remove what it no longer asks for.

    Not by `Steps.folder`, which begins anew after a kill: an export goes on where it was.
    """
    tokenizer = _tokenizer(context)
    for wanted in context.recipe.exports:
        from mixer.exports.export import export

        began = time.monotonic()
        name, target = f"export {wanted.folder}", context.run / "exports" / wanted.folder
        record = export(context.run, context.recipe, wanted, target, say=context.say, tokenizer=tokenizer)
        inputs = {"fingerprint": record["fingerprint"], "configuration": record["configuration"]}
        if context.steps.reason(name, inputs, target):
            context.steps.note(name, inputs, target, time.monotonic() - began)
    keep_only(context.run / "exports", {wanted.folder for wanted in context.recipe.exports})


def _tokenizer(context: Context) -> dict[str, str] | None:
    """The tokenizer's files; None, to keep those that are there, where a Run is planned anew, far from its recipe."""
    if not context.recipe.exports or context.store == context.run:
        return None
    from mixer.exports.configuration import tokenizer_texts

    digest = index_of(context.run / "shards" / next(iter(context.recipe.sources)))["tokenizer"]
    return tokenizer_texts(context.recipe.tokenizer, context.base, context.store, digest, context.say)
