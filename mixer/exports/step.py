"""The last step of a build: the recipe's exports, each written once and skipped while nothing changed."""

import time

from mixer.context import Context
from mixer.run import keep_only


def export_all(context: Context) -> None:
    """Write `exports/` of the Run as the recipe asks, and remove what it no longer asks for.

    Not by `Steps.folder`, which begins anew after a kill: an export goes on where it was.
    """
    for wanted in context.recipe.exports:
        from mixer.exports.export import export

        began = time.monotonic()
        name, target = f"export {wanted.folder}", context.run / "exports" / wanted.folder
        record = export(context.run, context.recipe, wanted, target, say=context.say)
        inputs = {"fingerprint": record["fingerprint"]}
        if context.steps.reason(name, inputs, target):
            context.steps.note(name, inputs, target, time.monotonic() - began)
    keep_only(context.run / "exports", {wanted.folder for wanted in context.recipe.exports})
