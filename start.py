#!/usr/bin/env python3
"""Set up an environment and use it, in one command.

    python3 start.py [run] [STUDY.toml] [options]    the main job: see `thalweg run --help`
    python3 start.py test [pytest options]           the tests

Needs Python 3.11 or newer with pip, and nothing else. Makes `.venv` beside this file, with the
exact versions that pyproject.toml lists.
"""

import hashlib
import os
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.abspath(__file__))
ENVIRONMENT = os.path.join(ROOT, ".venv")
BIN = os.path.join(ENVIRONMENT, "Scripts" if os.name == "nt" else "bin")
PYTHON = os.path.join(BIN, "python")


def set_up(group=None):
    """Install the project, and a group of development dependencies, unless that is done."""
    import tomllib

    path = os.path.join(ROOT, "pyproject.toml")
    with open(path, "rb") as file:
        content = file.read()
    project = tomllib.loads(content.decode())
    stamp = os.path.join(ENVIRONMENT, "start-%s.stamp" % (group or "run"))
    state = hashlib.sha256(content + sys.version.encode()).hexdigest()
    if os.path.exists(stamp):
        with open(stamp) as file:
            if file.read() == state:
                return
    if not os.path.exists(PYTHON) and not os.path.exists(PYTHON + ".exe"):
        print("making .venv ...", flush=True)
        subprocess.check_call([sys.executable, "-m", "venv", ENVIRONMENT])
    print("installing (a few minutes the first time) ...", flush=True)
    requirements = project["dependency-groups"][group] if group else []
    with tempfile.TemporaryDirectory() as folder:
        constraints = os.path.join(folder, "constraints.txt")
        with open(constraints, "w") as file:
            file.write("\n".join(project["tool"]["uv"]["constraint-dependencies"]))
        command = [PYTHON, "-m", "pip", "install", "--quiet", "-c", constraints]
        subprocess.check_call([*command, "--editable", ROOT, *requirements])
    with open(stamp, "w") as file:
        file.write(state)


def main():
    if sys.version_info < (3, 11):
        sys.exit("thalweg needs Python 3.11 or newer; this is %s." % sys.version.split()[0])
    arguments = sys.argv[1:]
    if arguments and arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 0
    try:
        if arguments and arguments[0] == "test":
            set_up("test")
            command = [PYTHON, "-m", "pytest", "-n", "2", "--dist", "loadgroup", *arguments[1:]]
            return subprocess.call(command, cwd=ROOT)
        set_up()
        if arguments and arguments[0] == "run":
            arguments = arguments[1:]
        return subprocess.call([PYTHON, "-m", "thalweg", "run", *arguments])
    except subprocess.CalledProcessError as error:
        return "setting up failed: %s" % " ".join(map(str, error.cmd[:5]))
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
