"""Shared pieces of the tests: the packaged tokenizer, and where real input lies when it is there."""

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("untimed", deadline=None)
# A busy machine pauses any process for longer than hypothesis grants an example; a speed is a benchmark.
settings.load_profile("untimed")

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def store(tmp_path_factory) -> Path:
    """Where the packaged tokenizer is converted to, once a session."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real input; without it the test is skipped, loudly."""
    if not SHARED.is_dir():
        pytest.skip(f"no real input at {SHARED}")
    return SHARED


@pytest.fixture
def no_waiting_for_the_disk(monkeypatch) -> None:
    """Hundreds of small files would each wait for it; who asks for this cuts no power."""
    monkeypatch.setattr("os.fsync", lambda _: None)
