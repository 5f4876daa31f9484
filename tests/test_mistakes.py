"""All mistakes of a study are told at once, each with its line, whatever is in the file."""

import pickle
import random
import re

import pytest

from thalweg import _memory
from thalweg.study import SpecError, load_spec, parse_spec

from .studies import TINY, write_idx, write_spec

# Every comment is a mistake: the field, and words of what is said about it.
MANY = """\
[study]
nam = "many"                # study.nam: unknown name; did you mean 'name'
seed = true                 # study.seed: integer, got True
dtype = "float32"

[data]
kind = "idx"
folder = "nowhere"          # data.folder: there is no folder
split = "train"

[network]
kind = "fully_connected"
widths = [3, 0, -4]         # network.widths[1]: got 0 & network.widths[2]: got -4
activation = "tahn"         # network.activation: unknown value 'tahn'; did you mean 'tanh'

[flow]
t1 = 1.0
saves = 200000              # flow.saves: less than or equal to 100000
rtol = 1e-9                 # flow.rtol: finer than float32 can give
atol = nan                  # flow.atol: finite number, got nan

[curvature]
largest = 1.5               # curvature.largest: integer, got 1.5
tolerance = 1e-60           # curvature.tolerance: too small for float32

[[optimizers]]              # optimizers[0].step_size: is missing
kind = "gradient_descent"
learning_rate = 0.1         # optimizers[0].learning_rate: unknown name

[[optimizers]]
kind = "heavy_ball"
step_size = 0.9             # optimizers[1].step_size: fewer than 2 steps
momentum = 1.0              # optimizers[1].momentum: less than 1, got 1

[[optimizers]]
kind = "nestorov"           # optimizers[2].kind: unknown kind 'nestorov'; did you mean 'nesterov'

[[optimizers]]              # optimizers[3]: a second optimizer is called 'heavy_ball'
kind = "heavy_ball"
step_size = 0.01
momentum = 0.5

[[optimizers]]
kind = "gradient_descent"
name = "gradient_flow"      # optimizers[4].name: is the name of a flow
step_size = 1e-12           # optimizers[4].step_size: takes 1e+12 steps

[kernels]                   # kernels: unknown name; did you mean 'kernel'
predict = false
"""


def expected(text):
    """Line, field and words of every mistake that a comment tells of."""
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        for note in line.partition("# ")[2].split(" & ") if "# " in line else ():
            field, words = note.split(": ", 1)
            found.append((number, field, words))
    return found


def told(path):
    with pytest.raises(SpecError) as caught:
        load_spec(path)
    return caught.value


def test_many_mistakes_are_told_at_once(tmp_path):
    path = write_spec(tmp_path, MANY)
    error, wanted = told(path), expected(MANY)
    assert len(wanted) == 20
    for line, field, words in wanted:
        matching = [m for m in error.mistakes if m.message.startswith(f"{field}: ")]
        assert [m.line for m in matching] == [line], field
        assert words in matching[0].message
    assert len(error.mistakes) == len(wanted), "and nothing else"
    lines = str(error).splitlines()
    assert [f"{path}:{m.line}: {m.message}" for m in error.mistakes] == lines
    assert [m.line for m in error.mistakes] == sorted(m.line for m in error.mistakes)
    assert error.line == 2


def test_mistakes_are_not_the_last_ones(tmp_path):
    """Mended one after the other, they never bring new ones to light."""
    text, left = MANY, None
    while True:
        try:
            load_spec(write_spec(tmp_path, text))
            break
        except SpecError as error:
            fields = {re.split(": ", m.message)[0] for m in error.mistakes}
            assert left is None or fields <= left, fields - left
            left = fields
            text = mended(text, sorted(left)[0])
        write_idx(tmp_path / "nowhere", seed=0)
    assert left is not None


MENDED = {
    "study.nam": ("nam =", "name ="),
    "study.seed": ("seed = true", "seed = 1"),
    "network.widths[1]": ("[3, 0, -4]", "[3, 4, -4]"),
    "network.widths[2]": ("-4]", "4]"),
    "network.activation": ("tahn", "tanh"),
    "flow.saves": ("saves = 200000", "saves = 20"),
    "flow.rtol": ("rtol = 1e-9", "rtol = 1e-4"),
    "flow.atol": ("atol = nan", "atol = 1e-4"),
    "curvature.largest": ("largest = 1.5", "largest = 1"),
    "curvature.tolerance": ("1e-60", "1e-6"),
    "optimizers[0].learning_rate": ("learning_rate", "step_size"),
    "optimizers[0].step_size": ("learning_rate", "step_size"),
    "optimizers[1].step_size": ("step_size = 0.9", "step_size = 0.01"),
    "optimizers[1].momentum": ("momentum = 1.0", "momentum = 0.9"),
    "optimizers[2].kind": ('"nestorov"', '"nesterov"\nstep_size = 0.01'),
    "optimizers[3]": (
        'kind = "heavy_ball"\nstep_size = 0.01',
        'kind = "nesterov_constant"\nstep_size = 0.01',
    ),
    "optimizers[4].name": ('"gradient_flow"', '"slow"'),
    "optimizers[4].step_size": ("1e-12", "1e-2"),
    "kernels": ("[kernels]", "[kernel]"),
}


def mended(text, field):
    old, new = MENDED[field]
    assert old in text, field
    return text.replace(old, new, 1)


def test_what_only_data_show_is_told_with_the_rest(tmp_path):
    """Samples that there are not, a network that does not suit them, too many eigenvalues."""
    text = (
        TINY.replace('"digits"', '"gaussian"\nfeatures = 5\nhidden = 0')
        .replace('kind = "fully_connected"\nwidths = [3]', 'kind = "convolutional_strided"')
        .replace("[flow]", '[loss]\nkind = "cross_entropy"\n[flow]\nsave = 3')
    )
    messages = [m.message for m in told(write_spec(tmp_path, text)).mistakes]
    assert any(m.startswith("data.hidden: ") for m in messages)
    assert any(m.startswith("flow.save: ") for m in messages)
    mended = text.replace("hidden = 0", "hidden = 1")
    messages = [m.message for m in told(write_spec(tmp_path, mended)).mistakes]
    for words in ("loss.kind: cross_entropy needs", "network.kind: .* square images", "flow.save:"):
        assert any(re.match(words, m) for m in messages), (words, messages)
    few = TINY.replace("samples = 20", "samples = 2000").replace("saves = 4", "saves = 0")
    messages = [m.message for m in told(write_spec(tmp_path, few)).mistakes]
    assert [m.split(":")[0] for m in messages] == ["data.samples", "flow.saves"]
    eigenvalues = TINY.replace('"digits"', '"gaussian"\nfeatures = 1').replace("[3]", "[1]")
    eigenvalues += "[curvature]\nlargest = 9\n[closeness]\npredicts = true\n"
    messages = [m.message for m in told(write_spec(tmp_path, eigenvalues)).mistakes]
    assert any("10 eigenvalues of a Hessian of 4 parameters" in m for m in messages)
    assert any(m.startswith("closeness.predicts: unknown name") for m in messages)


def test_damaged_data_are_told_with_the_rest(tmp_path):
    write_idx(tmp_path / "images", seed=0)
    path = tmp_path / "images" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    text = TINY.replace('"digits"', '"idx"\nfolder = "images"').replace("t1 = 1.0", "t1 = -1.0")
    error = told(write_spec(tmp_path, text))
    assert [m.line for m in error.mistakes] == [5, 15]
    assert re.match("data: .*train-images-idx3-ubyte: cut short", error.mistakes[0].message)


NESTED = "[" * 20_000 + "]" * 20_000
WILD = [
    ("widths = [3]", f"widths = {NESTED}", 11, "more than 16 deep"),
    (
        "widths = [3]",
        f"widths = {'[' * 100}3{']' * 100}",
        11,
        "network.widths: .*more than 16 deep",
    ),
    ("widths = [3]", "widths" + ".a" * 20_000 + " = 1", 11, "more than 16 deep"),
    ("widths = [3]", "widths = " + "{a = " * 20_000 + "1" + "}" * 20_000, 11, "16 deep"),
    ("[flow]", "[" + "a." * 20_000 + "a]\n[flow]", 13, "more than 16 deep"),
    ("samples = 20", f"samples = {10**30}", 7, r"data\.samples: .* about 30 digits; .*64 bits"),
    ("samples = 20", "samples = 1" + "0" * 5000, 7, "an integer of 5,001 digits; .*64 bits"),
    ("samples = 20", "samples = 0x1" + "0" * 5000, 7, r"data\.samples: .* about 6,020 digits"),
    ("samples = 20", f"samples = {-(10**30)}", 7, r"data\.samples: .* about 30 digits"),
    ("samples = 20", "samples = nan", 7, r"data\.samples: .*integer, got nan"),
    ("samples = 20", "samples = true", 7, r"data\.samples: .*integer, got True"),
    ("widths = [3]", f"widths = [3, {10**30}]", 11, r"network\.widths\[1\]: .* about 30 digits"),
    ("widths = [3]", "widths = [3, true]", 11, r"network\.widths\[1\]: .*integer, got True"),
    ("widths = [3]", f"widths = {[1] * 1001}", 11, r"network\.widths: .*at most 1000 items"),
    (
        "widths = [3]",
        f"widths = {'x' * 9000!r}",
        11,
        r"network\.widths: .*list, got 'x{40,60} \.\.\.",
    ),
    ("t1 = 1.0", "t1 = true", 14, r"flow\.t1: .*number, got True"),
    ("t1 = 1.0", f"t1 = {10**400}", 14, r"flow\.t1: .* about 400 digits"),
    ("t1 = 1.0", "t1 = 1e309", 14, r"flow\.t1: .*finite number, got inf"),
    ("t1 = 1.0", "t1 = 1.0\natol = 1e-310", 15, r"flow\.atol: 1e-310 is too small for float64"),
    ("saves = 4", "saves = 1000000", 15, r"flow\.saves: .*100000"),
    ("saves = 4", "max_steps = 1000000000000", 15, r"flow\.max_steps: .*less than 2147483648"),
    ("seed = 3", 'dtype = "float32"', 20, r"optimizers\[0\]\.step_size: 1e-50 is too small"),
    ("momentum = 0.9", "momentum = false", 25, r"optimizers\[1\]\.momentum: .*number, got False"),
    ("momentum = 0.9", "momentum = nan", 25, r"optimizers\[1\]\.momentum: .*finite"),
]


@pytest.mark.parametrize(("good", "bad", "line", "message"), WILD, ids=range(len(WILD)))
def test_values_that_no_field_can_have(good, bad, line, message):
    text = TINY.replace(good, bad, 1)
    if "1e-50" in message:
        text = text.replace("step_size = 0.05", "step_size = 1e-50")
    with pytest.raises(SpecError, match=message) as caught:
        parse_spec(text, "study.toml")
    error = caught.value
    assert line in [m.line for m in error.mistakes if re.search(message, m.message)]
    assert max(map(len, str(error).splitlines())) < 300
    assert {m.line for m in error.mistakes} == {line}, "and nothing else is made of it"


def test_sizes_beyond_the_machine_are_refused_with_their_keys(tmp_path, monkeypatch):
    """Nothing of that size is made; numbers, and the keys that make them large, are told."""
    monkeypatch.setattr(_memory, "machine_memory", lambda: 2**33)
    monkeypatch.setattr("thalweg.study._memory_needed.machine_memory", lambda: 2**33)
    gaussian = TINY.replace('"digits"', '"gaussian"\nfeatures = 10')
    cases = [
        (gaussian.replace("samples = 20", f"samples = {10**12}"), r"data\.samples: .*TiB"),
        (TINY.replace("[3]", f"[{10**12}]"), r"network\.widths: .*parameters would take .*TiB"),
        (TINY.replace("[3]", "[5000, 5000]"), r"network\.widths: .*; most of it for"),
        (gaussian.replace("samples = 20", f"samples = {10**8}"), r"data\.samples: the study would"),
        (TINY.replace("saves = 4", "saves = 90000").replace("[3]", "[300]"), r"flow\.saves: "),
        (TINY + '[kernel]\noutputs = "all"\n', None),
        (
            gaussian.replace("samples = 20", "samples = 24000") + '[kernel]\noutputs = "each"\n',
            r"kernel\.outputs: the matrix of 'each' has 4\.29 GiB, more than the 4 GiB",
        ),
    ]
    for text, message in cases:
        path = write_spec(tmp_path, text)
        if message is None:
            load_spec(path)
            continue
        error = told(path)
        assert re.search(message, str(error)), error
        assert all(len(line) < 500 for line in str(error).splitlines())


def test_files_that_are_no_studies(tmp_path):
    path = tmp_path / "large.toml"
    path.write_text("# comment\n" * 30_000)
    assert "is larger than 256 KiB" in str(told(path))
    assert "cannot be read" in str(told(tmp_path))


def test_mistakes_pass_between_processes():
    with pytest.raises(SpecError) as caught:
        parse_spec(TINY.replace("t1 = 1.0", "t1 = -1\nsave = 3"), "study.toml")
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert again.mistakes == caught.value.mistakes
    assert len(again.mistakes) == 2


def test_more_mistakes_than_anyone_reads():
    with pytest.raises(SpecError) as caught:
        parse_spec(TINY.replace("[3]", str([-1] * 500)), "study.toml")
    assert len(caught.value.mistakes) == 500
    assert str(caught.value).splitlines()[-1] == "study.toml: 400 more mistakes"
    assert len(str(caught.value).splitlines()) == 101


PIECES = [*"[]={}\"'.\n#-,", "[[", "1e999", "0x", "nan", "true", "9" * 30, "\x00", "é"]
PIECES += ['"""', "1979-05-27", "[a.b]", "kind", "[[flow]]", "[]", "{}"]


def test_texts_with_random_damage():
    """Read, or refused with a SpecError of short lines; nothing else."""
    rng, refused, longest = random.Random(0), 0, 0
    for _ in range(300):
        text = TINY
        for _ in range(rng.randint(1, 3)):
            place = rng.randrange(len(text))
            end = place + rng.choice((0, 0, 1, 5, 30))
            text = text[:place] + rng.choice(PIECES) + text[end:]
        try:
            parse_spec(text, "study.toml")
        except SpecError as error:
            refused += 1
            longest = max(longest, *map(len, str(error).splitlines()), 0)
    assert refused > 150
    assert longest < 400
