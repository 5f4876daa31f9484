"""Data spread over devices and processes give the numbers of one device, to rounding."""

import json
import os
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thalweg as tw

from .distributed import SAMPLES, numbers, objective_of


@pytest.fixture(scope="module")
def alone():
    return numbers(objective_of(None))


def started(*arguments, devices=1):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [sys.executable, "-m", "tests.distributed", *map(str, arguments)],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def output_of(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


def check(text, alone, devices):
    found = json.loads(text.splitlines()[-1])
    assert found.pop("devices") == devices
    assert found.keys() == alone.keys()
    for name, values in found.items():
        np.testing.assert_allclose(values, alone[name], rtol=1e-7, atol=1e-10, err_msg=name)


def test_eight_devices(alone):
    check(output_of(started(devices=8)), alone, 8)


def test_two_processes(alone):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [started(port, 2, rank) for rank in (0, 1)]
    first, second = map(output_of, processes)
    check(first, alone, 2)
    assert "devices" not in second, "only one process tells"


def test_meshes_that_do_not_fit():
    with pytest.raises(TypeError, match=r"mesh: expected a jax\.sharding\.Mesh, got int"):
        tw.objectives.Sharded(8)
    with pytest.raises(ValueError, match=r"mesh: it has axes of type Explicit; make it with"):
        tw.objectives.Sharded(
            jax.make_mesh((1,), ("a",), axis_types=(jax.sharding.AxisType.Explicit,))
        )


def test_samples_that_cannot_be_divided():
    class Three(tw.objectives.Sharded):
        """As if there were three devices."""

        def __init__(self):
            super().__init__()

        @property
        def devices(self):
            return 3

    with pytest.raises(ValueError, match=r"inputs: 16 samples .* among 3 devices. Take 15"):
        objective_of(Three())


def test_results_per_sample_stay_in_order():
    values = jnp.arange(SAMPLES, dtype=float)
    reduction = tw.objectives.Sharded()
    found = jax.jit(lambda x: reduction.per_sample(lambda some: 2 * some, x))(values)
    np.testing.assert_array_equal(found, 2 * values)
    total = jax.jit(lambda x: reduction.sum(lambda some: jnp.sum(some), x))(values)
    assert float(total) == values.sum()
