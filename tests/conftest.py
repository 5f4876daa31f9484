"""Tests compare against float64 oracles, so 64-bit mode is on for the whole suite."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import jax
import pytest

from .studies import TINY, WILD, write_spec

_SHARED = "JAX_COMPILATION_CACHE_DIR"


def _share_compiled_code():
    """Among test processes and those that tests start, for the length of one run."""
    if _SHARED not in os.environ:
        folder = tempfile.mkdtemp(prefix="thalweg-tests-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ[_SHARED] = folder
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
        # JAX has read its environment already.
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


# The older way to compile is the quicker one. From jaxlib 0.11 on, there is none but the newer.
_OLDER = jax.__version_info__ < (0, 11)
_WITHOUT_FUSION_EMITTERS = ("--xla_cpu_use_fusion_emitters=false",) if _OLDER else ()


def _compile_quickly():
    """Most of a test's time is compilation, for programs that run once.

    Set XLA_FLAGS, to nothing even, for programs compiled as users have them.
    """
    if "XLA_FLAGS" not in os.environ:
        # Read when JAX is used first, here and in the processes that tests start.
        os.environ["XLA_FLAGS"] = " ".join(
            (
                "--xla_backend_optimization_level=0",
                "--xla_llvm_disable_expensive_passes=true",
                *_WITHOUT_FUSION_EMITTERS,
                # Parts are compiled side by side: more work in all, and more pieces of memory.
                "--xla_cpu_parallel_codegen_split_count=1",
            )
        )


_compile_quickly()
_share_compiled_code()
jax.config.update("jax_enable_x64", True)


# Linux allows a process 65,530 mapped pieces of memory unless told otherwise.
_MANY_MAPS = 30_000


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """With `--dist loadgroup`, one process runs a whole file: its tests share compiled code.

    The files that look at the same two studies go to one process together.
    """
    shared = {item.path for item in items if {"finished", "diverged"} & set(item.fixturenames)}
    for item in items:
        name = "studies" if item.path in shared else item.path.stem
        item.add_marker(pytest.mark.xdist_group(name))


@pytest.fixture(autouse=True, scope="module")
def _compiled_code_is_dropped():
    """Every compiled program maps memory, of which a process may have only so many pieces."""
    yield
    maps = Path("/proc/self/maps")
    if not maps.exists() or maps.read_bytes().count(b"\n") > _MANY_MAPS:
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
