"""The lock of a directory: between processes, between threads, and after a death."""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from thalweg.study import StoreError, _lock
from thalweg.study._lock import Lock, _Owner

# Contenders that import neither JAX nor the rest of the library: `_lock` and what it needs alone.
_CONTENDER = f"""
import os, sys, types
package = types.ModuleType("study")
package.__path__ = [{str(Path(_lock.__file__).parent)!r}]
sys.modules["study"] = package
from study._lock import Lock
from study._errors import StoreError
directory, inside = sys.argv[1], os.path.join(sys.argv[1], "inside")
print("ready", flush=True)
"""
# Enters again and again; a second one inside would find the file that the first one has made.
_AGAIN = """
entered, tries = 0, 0
sys.stdin.readline()
while entered < 150:
    tries += 1
    try:
        with Lock(directory):
            os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
            os.unlink(inside)
            entered += 1
    except StoreError:
        pass
print(entered, tries, flush=True)
"""
# Enters once a line, and stays until the next one.
_AT_A_WORD = """
for line in sys.stdin:
    lock = Lock(directory)
    try:
        lock.__enter__()
    except StoreError as error:
        print(error, flush=True)
        sys.stdin.readline()
    else:
        print("in", flush=True)
        sys.stdin.readline()
        lock.__exit__()
    print("out", flush=True)
"""


@contextlib.contextmanager
def contenders(directory, what):
    """Two processes, ready to begin."""
    command = [sys.executable, "-c", _CONTENDER + what, str(directory)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with contextlib.ExitStack() as stack:
        both = [
            stack.enter_context(subprocess.Popen(command, text=True, **pipes)) for _ in range(2)
        ]
        for process in both:
            assert process.stdout.readline() == "ready\n"
        try:
            yield both
        finally:
            for process in both:
                process.stdin.close()


def say(processes, word):
    for process in processes:
        process.stdin.write(word + "\n")
        process.stdin.flush()


@pytest.fixture(scope="module")
def dead():
    """The owner of a lock, whose process has ended."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        started = _lock._state(process.pid)[1]
        process.communicate(b"\n")
    return dataclasses.replace(_Owner.here(), pid=process.pid, started=started, token="0")


def leave(directory, owner):
    path = directory / _lock.LOCK_NAME
    path.write_text(json.dumps(dataclasses.asdict(owner)))
    return path


def test_two_processes_are_never_inside_together(tmp_path):
    with contenders(tmp_path, _AGAIN) as both:
        say(both, "go")
        for process in both:
            assert process.stdout.readline().startswith("150 "), process.stderr.read()
    assert not list(tmp_path.iterdir())


def test_one_of_two_processes_enters(tmp_path, dead):
    """At the same moment, every other time beside the lock of a dead process."""
    with contenders(tmp_path, _AT_A_WORD) as both:
        for i in range(120):
            if i % 2:
                leave(tmp_path, dataclasses.replace(dead, token=str(i)))
            say(both, "go")
            answers = [process.stdout.readline() for process in both]
            assert answers.count("in\n") == 1, answers
            assert sum("is at work here since" in answer for answer in answers) == 1
            say(both, "out")
            assert [process.stdout.readline() for process in both] == ["out\n", "out\n"]
    assert not list(tmp_path.iterdir())


def test_threads_of_one_process_exclude_each_other(tmp_path):
    """They try at the same moment, and whoever is inside stays until both have tried."""
    rounds, together, entered = 30, threading.Barrier(2, timeout=60), []
    refused = []

    def work():
        for i in range(rounds):
            together.wait()
            try:
                with Lock(tmp_path):
                    entered.append(i)
                    together.wait()
            except StoreError as error:
                refused.append(str(error))
                together.wait()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert entered == list(range(rounds))
    assert len(refused) == rounds
    assert all(f"process {os.getpid()} on " in message for message in refused)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs the start of a process")
def test_a_process_number_that_was_given_again(tmp_path):
    """The number is that of this process; who held the lock was another one of that number."""
    here = _Owner.here()
    leave(tmp_path, dataclasses.replace(here, started=str(int(here.started) - 1), token="1"))
    with Lock(tmp_path):
        assert _lock._read(tmp_path / _lock.LOCK_NAME).started == here.started
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs the state of a process")
def test_a_process_that_nobody_has_waited_for_is_dead(tmp_path):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        started = _lock._state(process.pid)[1]
        owner = dataclasses.replace(_Owner.here(), pid=process.pid, started=started)
        assert not owner.dead
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert owner.dead


@pytest.mark.parametrize("other", [{"host": "elsewhere"}, {"machine": "an earlier start"}])
def test_what_cannot_be_seen_is_not_taken_over(tmp_path, dead, other):
    path = leave(tmp_path, dataclasses.replace(dead, **other))
    before = path.read_text()
    message = "cannot be seen from here. If it does not, remove .*running.lock"
    with pytest.raises(StoreError, match=message):
        Lock(tmp_path).__enter__()
    assert path.read_text() == before
    path.unlink()
    with Lock(tmp_path):
        pass


@pytest.mark.parametrize("text", ["torn by", "", "[]", "{}", '{"pid": 1}', "null"])
def test_a_lock_that_says_nothing_is_not_taken_over(tmp_path, text):
    (tmp_path / _lock.LOCK_NAME).write_text(text)
    with pytest.raises(StoreError, match=r"if nobody is, remove .*running\.lock"):
        Lock(tmp_path).__enter__()


def test_a_death_while_taking_over_is_survived(tmp_path, dead):
    """The lock by which one contender takes over is left as well."""
    path = leave(tmp_path, dead)
    second = path.with_name(f"{path.name}.{dead.token}")
    second.write_text(json.dumps(dataclasses.asdict(dataclasses.replace(dead, token="1"))))
    with Lock(tmp_path):
        assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_only_ones_own_lock_is_given_back(tmp_path, dead):
    path = tmp_path / _lock.LOCK_NAME
    with Lock(tmp_path):
        leave(tmp_path, dead)
    assert path.exists()


def test_file_systems_without_links(tmp_path, monkeypatch):
    def refused(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    with Lock(tmp_path), pytest.raises(StoreError, match="is at work here since"):
        Lock(tmp_path).__enter__()
    assert not list(tmp_path.iterdir())


def test_a_network_that_loses_the_answer(tmp_path, monkeypatch):
    """The link is made, but the second try of the same request is what is answered."""
    original = os.link

    def answered(source, target):
        original(source, target)
        raise FileExistsError(17, "File exists")

    monkeypatch.setattr(os, "link", answered)
    with Lock(tmp_path):
        assert (tmp_path / _lock.LOCK_NAME).exists()
    assert not list(tmp_path.iterdir())
