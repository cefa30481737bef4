"""What only a terminal shows: the question before a run is deleted."""

import os
import pty
import select
import shutil
import subprocess

from conftest import BINARY


def answered(command, answer):
    """Calls a command on a terminal of its own and answers its question: exit code, and what was on the screen."""
    child, terminal = pty.fork()
    if child == 0:
        os.execv(command[0], command)
    screen, asked = b"", False
    while select.select([terminal], [], [], 60)[0]:
        try:
            said = os.read(terminal, 4096)
        except OSError:
            # The other end is closed.
            break
        screen += said
        if not asked and b"[y/N]" in screen:
            asked = True
            os.write(terminal, answer)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), screen.decode()


def test_a_run_is_deleted_only_when_told_so(real_run, tmp_path):
    ledger = tmp_path / "ledger"
    shutil.copytree(real_run.ledger, ledger)
    command = [BINARY, "rm", real_run.name, "--ledger", str(ledger)]
    for answer in (b"\n", b"n\n", b"maybe\n"):
        code, screen = answered(command, answer)
        assert code == 0 and "nothing was deleted" in screen and (ledger / real_run.name).is_dir(), screen
    code, screen = answered(command, b"y\n")
    assert code == 0 and f"deleted {real_run.name}: 12 generations" in screen, screen
    assert not (ledger / real_run.name).exists()


def test_a_question_that_nobody_sees_deletes_nothing(real_run, tmp_path):
    ledger = tmp_path / "ledger"
    shutil.copytree(real_run.ledger, ledger)
    command = [BINARY, "rm", real_run.name, "--ledger", str(ledger)]
    reader, closed = os.pipe()
    os.close(reader)
    # Its answers come from a terminal, what it prints goes nowhere.
    leader, terminal = pty.openpty()
    os.write(leader, b"y\n")
    for output in (closed, os.open("/dev/full", os.O_WRONLY)):
        done = subprocess.run(command, stdin=terminal, stdout=output, stderr=subprocess.PIPE, text=True, timeout=60)
        assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
        assert done.stderr.startswith(("specfleet: cannot ask: ", "specfleet: cannot print: ")), done.stderr
        assert (ledger / real_run.name).is_dir()
        os.close(output)
    os.close(terminal)
    os.close(leader)
