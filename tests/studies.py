"""Studies small enough to run many times."""

import gzip
from pathlib import Path

import numpy as np
import zarr
from jax.flatten_util import ravel_pytree

from thalweg.study._digests import sealed

TINY = """\
[study]
name = "tiny"
seed = 3

[data]
kind = "digits"
samples = 20

[network]
kind = "fully_connected"
widths = [3]

[flow]
t1 = 1.0
saves = 4
rtol = 1e-5

[[optimizers]]
kind = "gradient_descent"
step_size = 0.05

[[optimizers]]
kind = "heavy_ball"
step_size = 0.01
momentum = 0.9

[[optimizers]]
kind = "nesterov"
step_size = 0.01
"""

# Every kind of stage and of state, with a flow and an optimizer of either order.
PAIR = TINY[: TINY.index('\n[[optimizers]]\nkind = "nesterov"')]

# For tests that look at something else.
PLAIN = (
    PAIR
    + """
[closeness]
predict = false
certify = false

[kernel]
predict = false
"""
)

# The first optimizer diverges; two share a flow; text that must not run in a browser.
WILD = """\
[study]
name = "<script>document.title = 'owned'</script> & 'co'"

[data]
kind = "gaussian"
samples = 15
features = 4
noise = 0.1

[network]
kind = "fully_connected"
widths = [5]
activation = "softplus"

[flow]
t1 = 40.0
saves = 6
rtol = 1e-5

[[optimizers]]
kind = "gradient_descent"
name = "too-large"
step_size = 15.0

[[optimizers]]
kind = "gradient_descent"
name = "small"
step_size = 0.2
"""


def write_spec(folder: Path, text: str) -> Path:
    path = folder / "study.toml"
    path.write_text(text)
    return path


def write_idx(folder, seed):
    """A small data set in MNIST's format."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (20, 4, 4), dtype=np.uint8)
    labels = rng.integers(0, 3, 20, dtype=np.uint8)
    head = np.array([0x803, 20, 4, 4], ">i4").tobytes()
    (folder / "train-images-idx3-ubyte").write_bytes(head + images.tobytes())
    with gzip.open(folder / "train-labels-idx1-ubyte.gz", "wb") as file:
        file.write(np.array([0x801, 20], ">i4").tobytes() + labels.tobytes())


def rewrite_attributes(group, *names, **others):
    """Take attributes out of a group of a store and add others, as another version would have."""
    found = zarr.open_group(group, mode="r+")
    kept = {name: value for name, value in found.attrs.items() if name not in names}
    found.attrs.put(sealed(kept | others))


def stored_numbers(directory):
    """Every number of a store, but for checkpoints."""
    root = zarr.open_group(directory / "study.zarr", mode="r")
    found = {
        path: np.asarray(item[...])
        for path, item in root.members(max_depth=None)
        if isinstance(item, zarr.Array) and not path.startswith("checkpoints")
    }
    counted = {
        f"{path}@{key}": value
        for path, item in root.members(max_depth=None)
        if isinstance(item, zarr.Group) and not path.startswith("checkpoints")
        for key, value in item.attrs.items()
    }
    return found, counted, root.attrs["verdict"]


def assert_same_numbers(left, right):
    (a, a_counts, a_verdict), (b, b_counts, b_verdict) = stored_numbers(left), stored_numbers(right)
    assert a.keys() == b.keys()
    for path in a:
        np.testing.assert_array_equal(a[path], b[path], err_msg=path)
    assert a_counts == b_counts
    assert a_verdict == b_verdict


def farthest(run, steps):
    """How far a run is from its start at most, of these steps."""
    rows = np.asarray([ravel_pytree(run[int(step)])[0] for step in steps])
    return np.linalg.norm(rows - rows[0], axis=1).max()
