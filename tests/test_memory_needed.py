"""The memory that a study is said to need, beside what its process takes."""

import io
import subprocess
import sys
from pathlib import Path

import pytest

from thalweg.study import parse_spec
from thalweg.study.build import build
from thalweg.study.progress import Bars, Lines

from .studies import PLAIN, TINY

# Prints the estimate and the most memory that the process ever had. `ru_maxrss` would count what
# the process had of the one that started it.
MEASURED = """
import sys, tempfile, jax
from pathlib import Path
jax.config.update("jax_enable_x64", True)
from thalweg.study import parse_spec, run_declared
from thalweg.study.build import build
declaration = parse_spec(sys.argv[2])
estimated = build(declaration).memory.peak
if sys.argv[1] == "run":
    with tempfile.TemporaryDirectory() as folder:
        run_declared(declaration, Path(folder) / "out")
status = Path("/proc/self/status").read_text()
measured = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
print(estimated, 1024 * measured)
"""

GAUSSIAN = PLAIN.replace('"digits"\nsamples = 20', '"gaussian"\nsamples = 20\nfeatures = 40')
GAUSSIAN = GAUSSIAN[: GAUSSIAN.index('[[optimizers]]\nkind = "heavy_ball"')]
QUIET = """
[curvature]
measure = false
[closeness]
predict = false
certify = false
[kernel]
predict = false
"""
# Many samples, of which the copies while they are made count; a wide network, of which the states
# of the flow do.
MANY = GAUSSIAN.replace("samples = 20", "samples = 2000000") + QUIET
WIDE = GAUSSIAN.replace("[3]", "[600, 600]").replace("saves = 4", "saves = 1") + QUIET
WIDE = WIDE.replace("t1 = 1.0", "t1 = 0.002").replace("0.05", "0.001")
WIDE = WIDE.replace("rtol = 1e-5", "rtol = 1e-6")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
@pytest.mark.parametrize(("until", "text"), [("build", MANY), ("run", WIDE)], ids=["many", "wide"])
def test_the_estimate_is_near_what_a_process_takes(until, text):
    """Within a factor of two; both take more than three times what the smallest study does."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, until, text], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    estimated, measured = map(int, done.stdout.split())
    smallest = build(parse_spec(GAUSSIAN + QUIET)).memory.peak
    assert estimated > 2 * smallest
    assert measured / 2 < estimated < 2 * measured


def test_every_stage_has_its_place():
    """What a key makes larger shows in its stage, and in no other."""

    def stages(text):
        return {need.stage: need.size for need in build(parse_spec(text)).memory.stages}

    small = stages(TINY)
    for old, new, grown in (
        ("saves = 4", "saves = 400", {"comparisons", "predicted distances", "certificates",
                                      "curvature", "the kernel"}),
        ("step_size = 0.05", "step_size = 1e-6", {"certificates"}),
        ("[flow]", "[curvature]\nlargest = 40\n[flow]", {"curvature"}),
        ("[flow]", "[kernel]\ndrift_samples = 1\n[flow]", set()),
    ):  # fmt: skip
        now = stages(TINY.replace(old, new))
        assert {stage for stage in now if now[stage] > small[stage]} == grown, new
    off = stages(PLAIN + "\n[curvature]\nmeasure = false\n")
    assert off.keys() == {"reading the data", "flows", "optimizers", "comparisons"}
    relu = TINY.replace("[3]", '[3]\nactivation = "relu"')
    assert not stages(relu).keys() & {"certificates", "predicted distances"}


def test_it_is_told_in_one_line(capsys):
    memory = build(parse_spec(TINY)).memory
    text = memory.told(3 * 2**20)
    assert text.startswith("memory: about 1 GiB of ")
    assert text.endswith("on disk: about 3 MiB at most")
    out = io.StringIO()
    Lines(out).say(text)
    assert out.getvalue() == f"{text}\n"
    Bars().say(text)
    assert capsys.readouterr().err == f"{text}\n"
