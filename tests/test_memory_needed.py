"""The memory that a study is said to need, beside what its process takes."""

import io
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from thalweg.study import parse_spec
from thalweg.study.build import build
from thalweg.study.progress import Bars, Lines

from .studies import PLAIN, TINY, write_spec

# Prints the estimate and the most memory that the process ever had, with the data made, and then
# with the first flow followed. `ru_maxrss` would count what the starting process had, too.
MEASURED = """
import sys, jax
from pathlib import Path
jax.config.update("jax_enable_x64", True)
from thalweg.flows import Integration
from thalweg.study import parse_spec
from thalweg.study.resumable import carry_out_run
from thalweg.study.build import build
from thalweg.study.progress import Silent
from thalweg.study.store import Store

folder = Path(sys.argv[1])
plan = build(parse_spec((folder / "study.toml").read_text(), folder=folder))
if "flow" in sys.argv:
    flow = plan.flows[0]
    run = Integration(
        flow.flow, plan.objective, plan.params, save_at=flow.times, rtol=plan.spec.rtol
    )
    store = Store.create(
        folder / "out",
        {"spec": "", "folder": "", "versions": "", "data_digest": "",
         "initial_parameters_digest": ""},
        0,
    )
    carry_out_run(store, Silent(), "flows/gradient_flow", "flow", run, {})
status = Path("/proc/self/status").read_text()
measured = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
print(plan.memory.peak, 1024 * measured)
"""

STUDY = (
    PLAIN[: PLAIN.index('[[optimizers]]\nkind = "heavy_ball"')]
    + """
[curvature]
measure = false
[closeness]
predict = false
certify = false
[kernel]
predict = false
"""
)
# Many pixels, of which the copies count while they are made; a wide network, of which the states
# of the flow and its companion do.
MANY = STUDY.replace('"digits"\nsamples = 20', '"idx"\nfolder = "images"')
WIDE = STUDY.replace("[3]", "[800, 800]").replace("saves = 4", "saves = 1")
WIDE = WIDE.replace("t1 = 1.0", "t1 = 0.002").replace("0.05", "0.001").replace("1e-5", "1e-6")


def write_black_images(folder, count, side):
    """Zeros that take no room on disk."""
    folder.mkdir()
    for name, sizes in (("images-idx3", (count, side, side)), ("labels-idx1", (count,))):
        with (folder / f"train-{name}-ubyte").open("wb") as file:
            file.write(bytes([0, 0, 8, len(sizes)]) + np.array(sizes, ">u4").tobytes())
            file.truncate(file.tell() + math.prod(sizes))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
@pytest.mark.parametrize(("until", "text"), [("data", MANY), ("flow", WIDE)])
def test_the_estimate_is_near_what_a_process_takes(until, text, tmp_path):
    """Within a factor of two, for a study that needs much more than a small one."""
    write_black_images(tmp_path / "images", 50_000, 40)
    write_spec(tmp_path, text)
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(tmp_path), until],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    estimated, measured = map(int, done.stdout.split())
    assert estimated > 2 * build(parse_spec(STUDY)).memory.peak
    assert measured / 2 < estimated < 2 * measured


def test_every_stage_has_its_place():
    """What a key makes larger shows in its stage, and in no other."""

    def stages(text):
        return {need.stage: need.size for need in build(parse_spec(text)).memory.stages}

    small = stages(TINY)
    for old, new, grown in (
        ("saves = 4", "saves = 400", {"comparisons", "predicted distances", "certificates",
                                      "curvature", "the kernel", "observables"}),
        ("step_size = 0.05", "step_size = 1e-6", {"certificates"}),
        ("[flow]", "[curvature]\nlargest = 40\n[flow]", {"curvature"}),
        ("[flow]", "[kernel]\ndrift_samples = 1\n[flow]", set()),
    ):  # fmt: skip
        now = stages(TINY.replace(old, new))
        assert {stage for stage in now if now[stage] > small[stage]} == grown, new
    off = stages(PLAIN + "\n[curvature]\nmeasure = false\n")
    assert off.keys() == {"reading the data", "flows", "optimizers", "comparisons", "observables"}
    relu = TINY.replace("[3]", '[3]\nactivation = "relu"')
    assert not stages(relu).keys() & {"certificates", "predicted distances"}


def test_it_is_told_in_one_line(capsys):
    memory = build(parse_spec(TINY)).memory
    text = memory.told(3 * 2**20)
    assert text.startswith("memory: about 1 GiB of ")
    assert "(1 GiB for Python and compiled programs, " in text
    assert text.endswith("on disk: about 3 MiB at most")
    out = io.StringIO()
    Lines(out).say(text)
    assert out.getvalue() == f"{text}\n"
    Bars().say(text)
    assert capsys.readouterr().err == f"{text}\n"
