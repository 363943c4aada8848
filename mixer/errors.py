"""The exception tree: what a user can mend. Everything else is a bug of ours and shows a traceback.

MixerError
├── RecipeError   the recipe is wrong
├── SourceError   input is missing, damaged or changed
├── PlanError     the token budgets cannot be met
├── ShardError    a shard is corrupt or belongs to another build
├── EngineError   a language model cannot be started, reached, or asked any more
├── CheckpointError  a checkpoint is damaged, or belongs to another training
└── ExportError   an export on disk is not what its Run says
"""


class MixerError(Exception):
    """One sentence `where: what: got X, expected Y`, and a `hint` that names the next action."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class RecipeError(MixerError):
    """The recipe file is wrong."""


class SourceError(MixerError):
    """A source is missing, damaged or not what the recipe says it is."""


class PlanError(MixerError):
    """The sources cannot fill the stages."""


class ShardError(MixerError):
    """A shard on disk is damaged, or was packed for another tokenizer or sequence length."""


class EngineError(MixerError):
    """The engine that runs a language model cannot be started, reached, or asked any more."""


class CheckpointError(MixerError):
    """A checkpoint is damaged, or was saved by a training on another plan, order, model or recipe."""


class ExportError(MixerError):
    """An export on disk is not what its Run says."""
