"""Bits flipped in the files of a study's store: each is told with its file, or changes nothing.

    python benchmarks/bit_flips.py [--count 300] [--resumed 40] [--seed 0]

A small study of embedded digits is carried out. Then, `count` times, one bit of one file of its
store is flipped, file and bit drawn at random, and the report is made from what is there. The same
is done `resumed` times with a study that was interrupted half-way, which is then gone on with: what
is not told must lead to the report of a study that was never interrupted. Failures are listed:
damage told without its file, damage that is shown, and any error but StoreError.
"""

import argparse
import contextlib
import random
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import jax
from _digits import environment

from thalweg.study import StoreError, parse_spec, resume, run_declared
from thalweg.study.progress import Silent
from thalweg.study.report import write_report

SPEC = """\
[data]
kind = "digits"
samples = 20

[network]
kind = "fully_connected"
widths = [8]

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
"""


class InterruptedAt(Silent):
    """Progress that ends with KeyboardInterrupt after some rows of a stage."""

    def __init__(self, title, rows):
        self._title, self._rows = title, rows

    @contextlib.contextmanager
    def stage(self, title, total, of=""):
        self._now = title
        yield self

    def at(self, done):
        if (self._now, done) == (self._title, self._rows):
            raise KeyboardInterrupt


def flip(path, rng):
    """Another value for one bit of a file."""
    data = bytearray(path.read_bytes())
    place = rng.randrange(8 * len(data))
    data[place // 8] ^= 1 << place % 8
    path.write_bytes(data)
    return f"bit {place}"


def outcome(directory, file, make_report, expected):
    """What becomes of a store with one damaged file."""
    try:
        shown = make_report(directory).read_text()
    except StoreError as error:
        return "told with its file" if file in str(error) else f"told without: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "changes nothing" if shown == expected else "CHANGES WHAT IS SHOWN"


def attack(whole, count, make_report, expected, rng, scratch):
    """Flip bits in copies of a study, one at a time; returns how often each outcome was seen."""
    files = sorted(p for p in (whole / "study.zarr").rglob("*") if p.is_file() and p.stat().st_size)
    seen = Counter()
    for _ in range(count):
        copy = scratch / "copy"
        shutil.copytree(whole, copy)
        victim = copy / rng.choice(files).relative_to(whole)
        file = str(victim.relative_to(copy / "study.zarr"))
        bit = flip(victim, rng)
        found = outcome(copy, file, make_report, expected)
        seen[found if found in ("told with its file", "changes nothing") else "failures"] += 1
        if found not in ("told with its file", "changes nothing"):
            print(f"  {file}, {bit}: {found}")
        shutil.rmtree(copy)
    print(f"  {len(files)} files; " + "; ".join(f"{what}: {n}" for what, n in seen.items()))
    return seen


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--resumed", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    print(environment())
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        declaration = parse_spec(SPEC)
        expected = run_declared(declaration, scratch / "whole").read_text()
        print(f"reports, {arguments.count} bits:")
        attack(scratch / "whole", arguments.count, write_report, expected, rng, scratch)
        half = scratch / "half"
        with contextlib.suppress(KeyboardInterrupt):
            run_declared(declaration, half, InterruptedAt("curvature, gradient flow", 3))
        print(f"resumed, {arguments.resumed} bits:")
        # The date of creation is in the report.
        shutil.copytree(half, scratch / "copy")
        expected = resume(scratch / "copy").read_text()
        shutil.rmtree(scratch / "copy")
        attack(half, arguments.resumed, resume, expected, rng, scratch)


if __name__ == "__main__":
    main()
