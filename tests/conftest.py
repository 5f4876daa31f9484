"""Tests compare against float64 oracles, so 64-bit mode is on for the whole suite."""

import jax
import pytest

from .studies import TINY, WILD, write_spec

jax.config.update("jax_enable_x64", True)


@pytest.fixture(autouse=True, scope="module")
def _compiled_code_is_dropped():
    """Every compiled program maps memory, of which a process may have only so many pieces."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The directory of a finished study that goes well."""
    return _finished(tmp_path_factory.mktemp("finished"), TINY)


@pytest.fixture(scope="session")
def diverged(tmp_path_factory):
    """The directory of a finished study in which one optimizer diverges."""
    return _finished(tmp_path_factory.mktemp("diverged"), WILD)


def _finished(folder, text):
    from thalweg.study import run_study

    report = run_study(write_spec(folder, text), folder / "out")
    assert report == folder / "out" / "report.html"
    return folder / "out"
