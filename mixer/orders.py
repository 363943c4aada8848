"""Which order a training takes its sequences in: the Run's, or its own where its guard raised replay."""

from pathlib import Path

from mixer.errors import SourceError


def orders_of(run: Path, training: str | None = None) -> dict[str, Path]:
    """Stage -> the file of its order, (sequences, 2) int32: source, sequence.

    Args:
        run: The Run.
        training: Its name below `checkpoints/`. Default: the order that was built, which every training begins with.

    Raises:
        SourceError: There is no such training.
    """
    found = _stages(run / "order")
    if training is not None:
        known = {path.name: path for path in sorted((run / "checkpoints").glob("*/"))}
        if training not in known:
            told = f"--name: got {training!r}, expected one of {', '.join(known) or 'none'}"
            raise SourceError(told, hint=f"trainings lie in {run}/checkpoints")
        found |= raised_orders(known[training])
    return found


def raised_orders(training: Path, *, until: int | None = None) -> dict[str, Path]:
    """Stage -> the newest order that a training's guard made for it; none of stages that it left as they were.

    Args:
        training: Its folder.
        until: Orders that were made at a later position count for nothing. Default: all count.
    """
    found: dict[str, Path] = {}
    # A folder is named by the position that it was made at; the newest has no stage that was over then.
    for own in sorted((training / "orders").glob("[0-9]*")):
        if until is None or int(own.name) <= until:
            found |= _stages(own)
    return found


def _stages(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(folder.glob("*.npy"))}
