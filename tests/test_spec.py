"""Mistakes in a study are told with line, field and the nearest valid name."""

import re

import pytest

from thalweg.study import SpecError, load_spec, parse_spec
from thalweg.study.build import lay_out

from .studies import TINY


def test_a_good_study():
    spec = parse_spec(TINY).spec
    assert [run.known_as for run in spec.optimizers] == [
        "gradient_descent",
        "heavy_ball",
        "nesterov",
    ]
    assert spec.curvature.largest == 1
    assert spec.flow.atol is None


def test_the_embedded_study_is_valid():
    from importlib.resources import files

    path = files("thalweg.study").joinpath("first_light.toml")
    declaration = load_spec(str(path))
    spec, text = declaration.spec, declaration.text
    assert spec.study.name == "first light"
    # What stands in comments is valid as well.
    alternatives = [line[2:] for line in text.splitlines() if line.startswith("# kind = ")]
    assert len(alternatives) == 6


MISTAKES = [
    ('name = "tiny"', 'nam = "tiny"', 2, r"study\.nam: unknown name; did you mean 'name'"),
    ("[flow]", "[flows]", 13, "flows: unknown name; did you mean 'flow'"),
    ("step_size = 0.05", "learning_rate = 0.05", 20, r"optimizers\[0\]\.learning_rate: unknown"),
    ('kind = "nesterov"', 'kind = "nesterov"\nname = "a/b"', 29, r"letters, digits, '_' and '-'"),
    ("saves = 4", "save = 4", 15, r"flow\.save: unknown name; did you mean 'saves'"),
    ('kind = "digits"', 'kind = "digit"', 6, r"data\.kind: unknown kind 'digit'; .*'digits'"),
    ('kind = "digits"\n', "", 5, r"data\.kind: is missing"),
    ("samples = 20", "samples = 0", 7, r"data\.samples: .*greater than or equal to 1, got 0"),
    ("samples = 20", 'samples = "20"', 7, r"data\.samples: .*integer, got '20'"),
    ("samples = 20", "sample = 20", 7, r"data\.sample: unknown name; did you mean 'samples'"),
    ("widths = [3]", "widths = [3, -1]", 11, r"network\.widths\[1\]: .*got -1"),
    ("widths = [3]", 'activation = "tahn"', 11, r"network\.activation: .*'tahn'; .*'tanh'"),
    ("seed = 3", "seed = -3", 3, r"study\.seed: .*got -3"),
    (
        "seed = 3",
        'dtype = "float16"',
        3,
        r"study\.dtype: unknown value 'float16'; did you mean 'float",
    ),
    ("t1 = 1.0", "t1 = 0.0", 14, r"flow\.t1: .*greater than 0, got 0"),
    ("t1 = 1.0", "t1 = inf", 14, r"flow\.t1: .*finite number, got inf"),
    ("t1 = 1.0", "t1 = nan", 14, r"flow\.t1: .*finite"),
    ("rtol = 1e-5", "rtol = 1e-17", 16, r"flow\.rtol: 1e-17 is finer than float64 can give"),
    ("step_size = 0.05", "step_size = -0.05", 20, r"optimizers\[0\]\.step_size: .*got -0.05"),
    (
        "step_size = 0.05",
        "step_size = 0.8",
        20,
        r"optimizers\[0\]\.step_size: .*fewer than 2 steps",
    ),
    ("step_size = 0.05", "step_size = 1e-12", 20, r"optimizers\[0\]\.step_size: .*1e\+12 steps"),
    ("momentum = 0.9", "momentum = 1.0", 25, r"optimizers\[1\]\.momentum: .*less than 1, got 1"),
    ("momentum = 0.9", "", 22, r"optimizers\[1\]\.momentum: is missing"),
    ("momentum = 0.9", "momentun = 0.9", 25, r"optimizers\[1\]\.moment"),
    ('kind = "nesterov"', 'kind = "heavy_ball"\nmomentum = 0.5', 27, "second optimizer is called"),
    (
        'kind = "nesterov"',
        'kind = "nesterov"\nname = "gradient_flow"',
        29,
        r"optimizers\[2\]\.name: 'gradient_flow' is the name of a flow",
    ),
    ("saves = 4", "saves = ", 15, "not valid TOML"),
]


@pytest.mark.parametrize(("good", "bad", "line", "message"), MISTAKES)
def test_mistakes(good, bad, line, message):
    assert good in TINY
    with pytest.raises(SpecError, match=message) as caught:
        parse_spec(TINY.replace(good, bad, 1), "study.toml")
    told = [m for m in caught.value.mistakes if re.search(message, m.message)]
    assert [m.line for m in told] in ([line], [None])
    where = "study.toml" if told[0].line is None else f"study.toml:{told[0].line}"
    assert f"{where}: {told[0].message}" in str(caught.value).splitlines()


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(SpecError, match="no such file"):
        load_spec(tmp_path / "nowhere.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpecError, match="cannot be read"):
        load_spec(tmp_path / "binary.toml")


def test_no_optimizers():
    text = TINY[: TINY.index("[[optimizers]]")]
    with pytest.raises(SpecError, match="optimizers: is missing"):
        parse_spec(text)
    with pytest.raises(SpecError, match=r"optimizers: .*at least 1"):
        parse_spec("optimizers = []\n" + text)


def test_the_common_clock():
    """Every saved step's time is a saved time of its flow, and flows are not integrated twice."""
    another = '[[optimizers]]\nkind = "gradient_descent"\nname = "half"\nstep_size = 0.025\n'
    flows, runs = lay_out(parse_spec(TINY + another).spec)
    assert [flow.name for flow in flows] == ["gradient_flow", "heavy_ball_flow", "nesterov_flow"]
    by_name = {flow.name: flow for flow in flows}
    for run in runs:
        times = run.save_steps * run.optimizer.time_per_step
        saved = by_name[run.flow].times
        assert all(min(abs(saved - t)) < 1e-12 for t in times)
        assert times[0] == 0
        assert abs(times[-1] - 1.0) <= run.optimizer.time_per_step / 2 + 1e-12
    assert runs[3].flow == "gradient_flow"
    assert len(by_name["gradient_flow"].times) < 10


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[[optimizers]]", "[optimizers]", r"optimizers: each optimizer is a table of its own"),
        ("[flow]", "[[flow]]", r"flow: should be a table, \[flow\]"),
        ('[data]\nkind = "digits"\nsamples = 20\n', "", r"data: should be a table, \[data\]"),
    ],
)
def test_tables_of_the_wrong_kind(old, new, message):
    text = TINY[: TINY.index('\n[[optimizers]]\nkind = "heavy_ball"')].replace(old, new)
    if not new:
        text = 'data = "digits"\n' + text
    with pytest.raises(SpecError, match=message):
        parse_spec(text)
