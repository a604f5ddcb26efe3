"""What every command line shares: how it ends."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from tf_largebatch.records.console import Parser, run_command
from tf_largebatch.records.errors import InputError, StoppedError


def ended(run, argv=()):
    with pytest.raises(SystemExit) as end:
        run_command(Parser(prog="tool"), run, argv)
    return end.value.code


def raises(error):
    def run(arguments):
        raise error

    return run


@pytest.mark.parametrize(("returned", "status"), [(None, 0), (0, 0), (3, 3)])
def test_a_command_ends_with_the_status_that_it_returns(returned, status):
    assert ended(lambda arguments: returned) == status


def test_wrong_input_is_one_line_with_the_name_of_the_command(capsys):
    assert ended(raises(InputError("--x must be 1. Received: 2"))) == 2
    assert capsys.readouterr().err == "tool: --x must be 1. Received: 2\n"


def test_an_unknown_flag_is_one_line(capsys):
    assert ended(lambda arguments: 0, ["--nonsense"]) == 2
    line = "tool: unrecognized arguments: --nonsense. There are those of --help\n"
    assert capsys.readouterr().err == line


def test_line_ends_and_escapes_of_what_was_given_do_not_reach_the_terminal(capsys):
    assert ended(raises(InputError("Received: a\nb\x1b[31m\udcff ö"))) == 2
    assert capsys.readouterr().err == "tool: Received: a\\nb\\x1b[31m\\udcff ö\n"


def test_a_signal_that_ended_the_work_is_128_plus_its_number(capsys):
    assert ended(raises(StoppedError("stopped; goes on", signal.SIGTERM))) == 143
    assert capsys.readouterr().err == "stopped; goes on\n"


def test_control_c_ends_quietly(capsys):
    assert ended(raises(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == ""


def test_a_full_disk_is_one_line_in_every_command(capsys):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/page.html.part")
    assert ended(raises(full)) == 2
    assert capsys.readouterr().err == (
        "tool: /data/page.html.part could not be written (No space left on device). Make room, and "
        "give the same command again\n"
    )
    with pytest.raises(FileNotFoundError):
        run_command(Parser(), raises(FileNotFoundError(errno.ENOENT, "no such file")), ())


def test_another_error_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run_command(Parser(), raises(ZeroDivisionError()), ())


@pytest.mark.parametrize("lines", [1, 100_000], ids=["at-the-end", "in-the-middle"])
def test_a_reader_that_stops_early_ends_the_command_quietly(lines):
    code = (
        "from tf_largebatch.records.console import Parser, run_command;"
        f"run_command(Parser(), lambda a: print('line\\n' * {lines}), ())"
    )
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")
