"""Sizes that no machine can hold are refused with a message, before anything is made."""

import itertools
import resource

import jax.random as jr
import pytest

import thalweg as tw
from thalweg import _memory

KEY = jr.key(0)
LARGE, VAST, ENDLESS = 10**12, 10**30, 10**5000


def convolutional(**sizes):
    given = {"channels": (2,), "kernel": 3, "padding": 1, "widths": (3,), "outputs": 2, **sizes}
    return tw.networks.convolutional((1, 8, 8), key=KEY, **given)


CALLS = {
    "widths": lambda n: tw.networks.fully_connected([n, 3, 1], key=KEY),
    "widths ": lambda n: tw.networks.fully_connected([2, n, n, 1], key=KEY),
    "width": lambda n: tw.networks.two_layer(3, n, key=KEY),
    "channels": lambda n: convolutional(channels=(n,)),
    "widths  ": lambda n: convolutional(widths=(n,)),
    "side": lambda n: convolutional(kernel=n, padding=0),
    "samples": lambda n: tw.datasets.gaussian_teacher(n, 3, key=KEY),
    "samples ": lambda n: tw.datasets.gaussian_teacher(4, n, key=KEY),
    "hidden": lambda n: tw.datasets.gaussian_teacher(4, 3, hidden=n, key=KEY),
}


@pytest.mark.parametrize("call", CALLS)
def test_sizes_beyond_the_machine(call):
    with pytest.raises(ValueError, match=f"^{call.strip()}: .*(of memory, but this|too small)"):
        CALLS[call](LARGE)
    for beyond in (VAST, ENDLESS):
        with pytest.raises(ValueError, match=r"expected at most .* an integer of about") as caught:
            CALLS[call](beyond)
        assert len(str(caught.value)) < 200


def test_the_smallest_image_is_told():
    """Against every size up to it: also where an image vanishes between two convolutions."""

    def fits(side, kernel, stride, pool, padding):
        for _ in range(2):
            side = ((side + 2 * padding - kernel) // stride + 1) // pool
            if side < 1:
                return False
        return True

    for shape in itertools.product((1, 3, 4), (1, 2), (1, 2), (0, 1, 2)):
        kernel, stride, pool, padding = shape
        smallest = next(s for s in range(1, 100) if fits(s, *shape))
        for side in range(1, smallest):
            with pytest.raises(ValueError, match=f"needs at least {smallest} x {smallest}"):
                tw.networks.convolutional(
                    (1, side, side),
                    channels=(1, 1),
                    outputs=1,
                    kernel=kernel,
                    stride=stride,
                    pool=pool,
                    padding=padding,
                    key=KEY,
                )


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Pretend that the machine has 2^40 bytes and these control groups."""

    def pretend(membership, **limits):
        monkeypatch.setattr(_memory, "_physical", lambda: 2**40)
        monkeypatch.setattr(_memory, "_of_address_space", lambda: None)
        monkeypatch.setattr(_memory, "_CGROUPS", tmp_path)
        monkeypatch.setattr(_memory, "_MEMBERSHIP", tmp_path / "membership")
        (tmp_path / "membership").write_text(membership)
        for path, limit in limits["files"].items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(limit)
        return _memory.machine_memory()

    return pretend


V1 = "9:name=systemd:/\n4:cpu,memory:/batch/job\n0::/\n"


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/a/b\n", {"a/b/memory.max": "max\n", "a/memory.max": "4096\n"}, 4096),
        ("0::/a/b\n", {"a/b/memory.max": "512\n", "a/memory.max": "4096\n"}, 512),
        ("0::/seen/from/outside\n", {"memory.max": "8192\n"}, 8192),
        ("0::/a\n", {"a/memory.max": "max\n"}, 2**40),
        (V1, {"memory/memory.limit_in_bytes": "9223372036854771712\n"}, 2**40),
        (V1, {"memory/batch/job/memory.limit_in_bytes": "1024\n"}, 1024),
        ("", {}, 2**40),
    ],
)
def test_the_limits_of_control_groups(machine, membership, files, expected):
    assert machine(membership, files=files) == expected


def test_the_limit_on_the_address_space(monkeypatch):
    physical = _memory.machine_memory()
    assert physical is not None
    monkeypatch.setattr(resource, "getrlimit", lambda _: (12345, 12345))
    assert _memory.machine_memory() == 12345
    with pytest.raises(ValueError, match=r"^rows: 3 rows would take 12\.1 KiB .* has 12\.1 KiB"):
        _memory.check_memory(12346, "rows", "3 rows")
    _memory.check_memory(12345, "rows", "3 rows")


def test_where_the_system_does_not_tell(monkeypatch):
    for name, found in (("_physical", None), ("_of_groups", ()), ("_of_address_space", None)):
        monkeypatch.setattr(_memory, name, lambda found=found: found)
    assert _memory.machine_memory() is None
    _memory.check_memory(10**30, "rows", "rows")


def test_bytes_in_words():
    for size, words in (
        (0, "0 B"),
        (1023, "1,023 B"),
        (1536, "1.5 KiB"),
        (2**30 + 2**29, "1.5 GiB"),
        (1000 * 2**30, "1,000 GiB"),
        (10**24, "867,362 EiB"),
        (2**100000, "2^100000 B"),
    ):
        assert _memory.in_words(size) == words
