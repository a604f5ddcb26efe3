"""The launcher, with workers of plain Python: who failed first, and that nothing stays behind."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

PRELUDE = """
import json, os, pathlib, signal, subprocess, sys, time
here = pathlib.Path(os.environ["FOLDER"])
rank = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
def ready():
    open(os.environ["TF_LARGEBATCH_READY"], "w").close()
def note(name, text=""):
    (here / "part").with_suffix(f".{os.getpid()}").write_text(str(text))
    (here / "part").with_suffix(f".{os.getpid()}").rename(here / name)
def wait_for(name):
    for _ in range(2_000):
        if (here / name).exists():
            return
        time.sleep(0.01)
    sys.exit(f"no {name}")
def wait_for_end(rank):
    wait_for(f"pid-{rank}")
    try:
        while True:
            os.kill(int((here / f"pid-{rank}").read_text()), 0)
            time.sleep(0.01)
    except ProcessLookupError:  # not before the launcher has collected it
        return
note(f"pid-{rank}", os.getpid())
"""


def default_signals():
    """Undoes what nohup and background jobs of a shell ignore: the launcher would keep to it."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.fixture
def job(tmp_path):
    """Starts launchers over scripts; whatever a failed test leaves behind is ended."""
    folder, scratch = tmp_path / "workers", tmp_path / "scratch"
    folder.mkdir()
    scratch.mkdir()
    outer = ("TF_CONFIG", "SLURM_", "JOB_COMPLETION", "TF_LARGEBATCH", "CUDA_VISIBLE")
    plain = {k: v for k, v in os.environ.items() if not k.startswith(outer)}
    plain |= {"FOLDER": str(folder), "TMPDIR": str(scratch), "CUDA_VISIBLE_DEVICES": "-1"}
    launched = []

    class Job:
        path, environ = folder, plain

        def start(self, script, *flags, workers=2, **variables):
            (folder / "worker.py").write_text(PRELUDE + script)
            process = subprocess.Popen(
                [sys.executable, "-m", "tf_largebatch.launch", "--workers", str(workers), *flags]
                + ["--", str(folder / "worker.py")],
                cwd=ROOT,
                env=self.environ | variables,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                preexec_fn=default_signals,
            )
            launched.append(process)
            return process

        def run(self, script, *flags, workers=2, **variables):
            process = self.start(script, *flags, workers=workers, **variables)
            out, err = process.communicate(timeout=50)
            assert not list(scratch.iterdir()), "the folder of the ready files is left"
            return process.returncode, out.splitlines(), err.splitlines()

        def command(self, *arguments, **variables):
            return subprocess.run(
                [sys.executable, "-m", "tf_largebatch.launch", *arguments],
                cwd=ROOT,
                env=self.environ | variables,
                capture_output=True,
                text=True,
                timeout=50,
            )

        def pid(self, name, seconds=30.0):
            """The number that a worker noted under this name, once it is there."""
            give_up = time.monotonic() + seconds
            while not (folder / name).exists():
                assert time.monotonic() < give_up, f"no {name} after {seconds} s"
                time.sleep(0.01)
            return int((folder / name).read_text())

    yield Job()
    for process in launched:
        process.kill()
        process.communicate()
    for note in folder.glob("pid-*"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(note.read_text()), signal.SIGKILL)


def gone(pid, seconds=20.0):
    """Whether the process ends within the time; a zombie that nobody collects has ended."""
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        state = subprocess.run(
            ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True
        ).stdout.strip()
        if not state or state.startswith("Z"):
            return True
        time.sleep(0.02)
    return False


def started(err):
    """The lines of the launcher that say a job began."""
    return [line for line in err if " ports " in line]


def test_success_of_all_is_status_0_and_each_line_bears_its_rank(job):
    status, out, err = job.run(
        'ready(); print("out", rank); print("err", rank, file=sys.stderr)', workers=3
    )
    assert status == 0
    assert sorted(out) == ["[rank 0] out 0", "[rank 1] out 1", "[rank 2] out 2"]
    ranks = sorted(line for line in err if line.startswith("[rank"))
    assert ranks == ["[rank 0] err 0", "[rank 1] err 1", "[rank 2] err 2"]
    assert not any("failed" in line for line in err)


def test_workers_get_one_cluster_of_free_ports_and_their_own_rank(job):
    script = """
import socket
config = json.loads(os.environ["TF_CONFIG"])
host, port = config["cluster"]["worker"][rank].split(":")
socket.create_server((host, int(port)))
note(f"config-{rank}", json.dumps(config))
ready()
"""
    assert job.run(script, workers=3)[0] == 0
    configs = [json.loads((job.path / f"config-{rank}").read_text()) for rank in range(3)]
    assert [c["task"] for c in configs] == [{"type": "worker", "index": r} for r in range(3)]
    assert configs[0]["cluster"] == configs[1]["cluster"] == configs[2]["cluster"]
    assert len(set(configs[0]["cluster"]["worker"])) == 3


def test_arguments_after_the_dashes_reach_python_unchanged(job):
    job.path.joinpath("echo.py").write_text("import sys; print(sys.argv[1:])")
    done = job.command(
        *("--workers", "1", "--start-timeout", "0", "--"),
        *(str(job.path / "echo.py"), "--workers", "9", "--", "a b"),
    )
    assert done.stdout == "[rank 0] ['--workers', '9', '--', 'a b']\n"


def test_unfinished_lines_and_carriage_returns_become_whole_lines(job):
    script = r"""
ready()
def write(text):
    sys.stdout.write(text)
    sys.stdout.flush()
    time.sleep(0.05)
if rank == 0:
    for text in ("one ", "line\n", "1%\r", "50%\r2%", "\r100%\n", "dos\r\n", "\n", "no end"):
        write(text)
"""
    status, out, _ = job.run(script)
    assert status == 0
    lines = ["one line", "100%", "dos", "", "no end"]
    assert out == [f"[rank 0] {line}" for line in lines]


def test_a_line_without_end_is_shown_while_the_worker_goes_on(job):
    process = job.start(
        'ready(); print("waiting", end="", flush=True); wait_for("go"); print(); print("done")',
        workers=1,
    )
    begin = time.monotonic()
    assert process.stdout.readline() == "[rank 0] waiting\n"
    assert time.monotonic() - begin < 15  # the worker waits for 20 s
    (job.path / "go").touch()
    # The end of the line that was shown makes no empty line.
    assert process.communicate(timeout=50)[0] == "[rank 0] done\n"


def test_no_line_is_lost_when_a_worker_ends_with_much_to_say(job):
    # Far more than the launcher reads at once, and all of it at the end.
    script = r"""
import fcntl
if hasattr(fcntl, "F_SETPIPE_SZ"):
    fcntl.fcntl(1, fcntl.F_SETPIPE_SZ, 1 << 20)
ready()
os.write(1, b"".join(b"%07d\n" % i for i in range(50_000)))
os._exit(0)
"""
    status, out, _ = job.run(script)
    assert status == 0
    for rank in range(2):
        mine = [line for line in out if line.startswith(f"[rank {rank}]")]
        assert mine == [f"[rank {rank}] {i:07d}" for i in range(50_000)]


def test_the_first_failure_counts_and_not_the_abort_that_follows(job):
    script = """
ready()
if rank == 1:
    sys.exit(7)
wait_for_end(1)
os.abort()
"""
    status, _, err = job.run(script)
    assert status == 7
    assert err[-1] == "[launch] failed: rank 1 ended with status 7"


def test_of_two_failures_found_together_the_abort_is_not_the_cause(job):
    script = """
ready()
note(f"up-{rank}", 1)
wait_for("go")
if rank == 0:
    os.abort()
sys.exit(7)
"""
    process = job.start(script)
    job.pid("up-0"), job.pid("up-1")
    process.send_signal(signal.SIGSTOP)  # it cannot see which one ends first
    (job.path / "go").touch()
    assert gone(job.pid("pid-0")) and gone(job.pid("pid-1"))
    process.send_signal(signal.SIGCONT)
    process.communicate(timeout=50)
    assert process.returncode == 7


def test_a_signal_that_ends_a_worker_is_named_and_gives_128_plus_its_number(job):
    script = """
ready()
if rank == 0:
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(60)
"""
    status, _, err = job.run(script, "--grace", "0.2")
    assert status == 137
    assert err[-1] == "[launch] failed: rank 0 was ended by SIGKILL"


@pytest.mark.parametrize("explanation", [2, 3])
def test_wrong_input_or_a_nonfinite_loss_explains_an_earlier_failure(job, explanation):
    script = f"""
ready()
if rank == 0:
    sys.exit(1)
wait_for_end(0)
sys.exit({explanation})
"""
    status, _, err = job.run(script, "--restarts", "1")
    assert status == explanation
    assert err[-1].startswith(f"[launch] failed: rank 1 ended with status {explanation} (")
    assert len(started(err)) == 1


def test_the_others_may_end_by_themselves_within_the_grace_time(job):
    script = """
ready()
if rank == 1:
    wait_for("pid-0")
    sys.exit(5)
wait_for_end(1)
time.sleep(0.3)
print("saved")
"""
    status, out, err = job.run(script, "--grace", "30")
    assert (status, out) == (5, ["[rank 0] saved"])
    assert "[launch] rank 1 ended with status 5; rank 0 still running, gets 30 s" in err


def test_who_stays_after_the_grace_time_gets_sigterm_and_then_sigkill(job):
    script = """
if rank == 0:
    signal.signal(signal.SIGTERM, lambda *_: print("asked to stop"))
    note("up")
ready()
if rank == 1:
    wait_for("up")
    sys.exit(5)
while True:
    time.sleep(0.05)
"""
    begin = time.monotonic()
    status, out, err = job.run(script, "--grace", "0.5")
    assert (status, out) == (5, ["[rank 0] asked to stop"])
    assert time.monotonic() - begin > 1.0  # two grace times
    assert err[-1] == "[launch] failed: rank 1 ended with status 5"
    assert gone(job.pid("pid-0"))


def test_missing_ranks_are_named_when_the_start_takes_too_long(job):
    script = """
if rank in (0, 3):
    ready()
time.sleep(60)
"""
    status, _, err = job.run(script, "--start-timeout", "2.5", workers=4)
    assert status == 124
    assert err[-1] == "[launch] failed: rank 1 2 of 4 not ready within 2.5 s (--start-timeout)"
    assert all(gone(job.pid(f"pid-{rank}")) for rank in range(4))


def test_a_start_timeout_of_0_asks_for_no_report(job):
    status, out, _ = job.run('time.sleep(0.3); print("end")', "--start-timeout", "0", workers=1)
    assert (status, out) == (0, ["[rank 0] end"])


def test_a_job_that_hangs_ends_at_the_run_timeout_and_is_not_restarted(job):
    script = "ready(); time.sleep(60)"
    status, _, err = job.run(script, "--run-timeout", "2", "--restarts", "3")
    assert status == 124
    assert err[-1] == "[launch] failed: not done within 2 s (--run-timeout)"
    assert len(started(err)) == 1
    assert gone(job.pid("pid-0")) and gone(job.pid("pid-1"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_reaches_every_worker_and_their_last_words_are_waited_for(job, number):
    script = """
def stop(number, frame):
    time.sleep(0.3)
    print("saved on", number)
    sys.exit(77)
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, stop)
ready()
note(f"up-{rank}", 1)
time.sleep(60)
"""
    process = job.start(script, "--restarts", "3")
    job.pid("up-0"), job.pid("up-1")
    process.send_signal(number)
    out, err = process.communicate(timeout=50)
    assert process.returncode == 77
    assert f"[launch] stopped by {number.name}: rank " in err and "failed" not in err
    assert sorted(out.splitlines()) == [f"[rank {r}] saved on {int(number)}" for r in range(2)]
    assert len(started(err.splitlines())) == 1


def test_workers_that_end_well_on_a_signal_end_the_job_well(job):
    script = """
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
ready()
note(f"up-{rank}", 1)
time.sleep(60)
"""
    process = job.start(script)
    job.pid("up-0"), job.pid("up-1")
    process.terminate()
    process.communicate(timeout=50)
    assert process.returncode == 0


def test_a_worker_that_ignores_the_signal_is_killed_after_the_grace_time(job):
    script = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
ready()
note(f"up-{rank}", 1)
time.sleep(60)
"""
    process = job.start(script, "--grace", "0.3")
    job.pid("up-0"), job.pid("up-1")
    process.terminate()
    _, err = process.communicate(timeout=50)
    assert process.returncode == 143
    assert "rank 0 1 had not ended 0.3 s after the signal" in err
    assert gone(job.pid("pid-0")) and gone(job.pid("pid-1"))


def test_a_frozen_worker_does_not_outlive_the_job(job):
    script = """
ready()
if rank == 0:
    os.kill(os.getpid(), signal.SIGSTOP)
else:
    wait_for("pid-0")
    time.sleep(0.2)
    sys.exit(4)
"""
    status, _, _ = job.run(script, "--grace", "0.3")
    assert status == 4
    assert gone(job.pid("pid-0"))


def test_a_failure_restarts_all_workers_on_new_ports(job):
    script = """
note(f"start-{rank}-{time.time_ns()}", os.environ["TF_CONFIG"])
ready()
if rank == 0 and len(list(here.glob("start-0-*"))) < 3:
    sys.exit(9)
time.sleep(0.2)
"""
    status, _, err = job.run(script, "--restarts", "5", "--grace", "30")
    assert status == 0
    restarts = [line for line in err if "restart" in line]
    assert restarts == [
        "[launch] restart 1 of 5: all workers, new ports",
        "[launch] restart 2 of 5: all workers, new ports",
    ]
    seen = [json.loads(p.read_text())["cluster"] for p in sorted(job.path.glob("start-*-*"))]
    assert len(seen) == 6
    assert len({json.dumps(c) for c in seen}) == 3
    assert seen[:3] == seen[3:]  # both ranks were told the same, each time
    assert re.findall(r"ports (.*), GPUs", started(err)[2])[0].split() == [
        address.partition(":")[2] for address in seen[2]["worker"]
    ]


def test_restarts_end_when_they_are_used_up(job):
    status, _, err = job.run("ready(); sys.exit(9)", "--restarts", "2", workers=1)
    assert status == 9
    assert len(started(err)) == 3


@pytest.mark.parametrize("status", [2, 3])
def test_wrong_input_and_a_nonfinite_loss_are_not_tried_again(job, status):
    got, _, err = job.run(f"ready(); sys.exit({status})", "--restarts", "2")
    assert got == status
    assert len(started(err)) == 1


def test_a_script_that_lets_an_input_error_through_is_not_tried_again(job):
    script = """ready()
from tf_largebatch.records.errors import InputError
raise InputError("`x` must be 1. Received: 2")
"""
    got, _, err = job.run(script, "--restarts", "2", workers=1, PYTHONPATH=str(ROOT))
    assert got == 2
    assert len(started(err)) == 1
    assert any("InputError: `x` must be 1. Received: 2" in line for line in err)


def test_a_start_that_takes_too_long_is_tried_again(job):
    script = """
note(f"start-{time.time_ns()}")
if len(list(here.glob("start-*"))) == 1:
    time.sleep(60)
ready()
"""
    flags = ("--restarts", "1", "--start-timeout", "2")
    status, _, err = job.run(script, *flags, workers=1)
    assert status == 0
    assert len(started(err)) == 2


def test_a_report_from_before_the_restart_does_not_count(job):
    script = """
note(f"start-{time.time_ns()}")
if len(list(here.glob("start-*"))) == 1:
    ready()
    sys.exit(9)
time.sleep(4)
"""
    flags = ("--restarts", "1", "--start-timeout", "1")
    status, _, err = job.run(script, *flags, workers=1)
    assert status == 124
    assert err[-1] == "[launch] failed: rank 0 of 1 not ready within 1 s (--start-timeout)"


CHILD = """
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
note(f"pid-child-{rank}", child.pid)
ready()
"""


def test_children_of_a_worker_end_with_it(job):
    status, _, _ = job.run(CHILD + "print('end')")
    assert status == 0
    assert gone(job.pid("pid-child-0")) and gone(job.pid("pid-child-1"))


def test_sigkill_of_the_launcher_leaves_no_process_and_no_folder(job, tmp_path):
    process = job.start("signal.signal(signal.SIGTERM, signal.SIG_IGN)" + CHILD + "time.sleep(60)")
    pids = [job.pid(f"pid-{name}") for name in ("0", "1", "child-0", "child-1")]
    process.kill()
    # The guard holds the launcher's output open, so its end is the guard's end.
    process.communicate(timeout=50)
    assert all(gone(pid) for pid in pids)
    assert not list((tmp_path / "scratch").iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux ends the workers")
def test_sigkill_of_the_guard_and_then_of_the_launcher_leaves_no_worker(job):
    process = job.start("signal.signal(signal.SIGTERM, signal.SIG_IGN);ready();time.sleep(60)")
    pids = [job.pid("pid-0"), job.pid("pid-1")]
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    (guard,) = set(map(int, children)) - set(pids)
    os.kill(guard, signal.SIGKILL)
    process.kill()
    process.communicate(timeout=50)
    assert all(gone(pid) for pid in pids)


def test_sigkill_of_the_launchers_whole_group_leaves_no_worker(job):
    script = PRELUDE + CHILD + "time.sleep(60)"
    (job.path / "worker.py").write_text(script)
    process = subprocess.Popen(
        [sys.executable, "-m", "tf_largebatch.launch", "--workers", "1", "--", "worker.py"],
        cwd=job.path,
        env=job.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    pids = [job.pid("pid-0"), job.pid("pid-child-0")]
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=50)
    assert all(gone(pid) for pid in pids)


def test_workers_stop_when_nobody_reads_their_output_any_more(job):
    script = """
ready()
while True:
    print("line")
    time.sleep(0.01)
"""
    process = job.start(script)
    process.stdout.readline()
    job.pid("pid-0"), job.pid("pid-1")
    process.stdout.close()
    process.wait(timeout=50)
    process.stdout = None
    assert process.returncode == 143
    assert gone(job.pid("pid-0")) and gone(job.pid("pid-1"))


@pytest.mark.parametrize(
    ("flags", "visible", "seen"),
    [
        ((), "-1", ["-1", "-1"]),
        ((), "4,5,6,7", ["4,5", "6,7"]),
        (("--gpus-per-worker", "1"), "4,5,6,7", ["4", "5"]),
        (("--gpus-per-worker", "0"), "4,5,6,7", ["-1", "-1"]),
    ],
)
def test_each_worker_sees_its_own_gpus(job, flags, visible, seen):
    script = 'ready(); print(os.environ["CUDA_VISIBLE_DEVICES"])'
    status, out, _ = job.run(script, *flags, CUDA_VISIBLE_DEVICES=visible)
    assert status == 0
    assert sorted(out) == [f"[rank {rank}] {gpus}" for rank, gpus in enumerate(seen)]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--workers 0 -- x.py", "--workers: must be a whole number of at least 1. Received: 0"),
        ("--workers two -- x.py", "Received: two"),
        ("--restarts -1 --workers 2 -- x.py", "--restarts: must be a whole number of at least 0"),
        ("--grace nan --workers 2 -- x.py", "--grace: must be a number of at least 0"),
        ("--run-timeout inf --workers 2 -- x.py", "Received: inf"),
        ("--workers 2 --", "nothing after --"),
        ("-- x.py", "--workers must be given"),
        ("--work 2 -- x.py", "unrecognized arguments: --work 2"),
        ("--workers 2 x.py -- x.py", "unrecognized arguments: x.py"),
        ("--workers 2 --gpus-per-worker 2 -- x.py", "GPUs per worker must be at most 0"),
    ],
)
def test_wrong_arguments_are_one_line_and_status_2(job, arguments, says):
    done = job.command(*arguments.split())
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_too_few_gpus_for_the_workers_are_refused(job):
    done = job.command("--workers", "2", "--", "x.py", CUDA_VISIBLE_DEVICES="3")
    assert done.returncode == 2
    assert "Start at most 1" in done.stderr and done.stderr.count("\n") == 1


def test_without_dashes_one_line_says_where_the_command_stands(job):
    done = job.command("--workers", "2", "-m", "tf_largebatch.recipes.goyal_8k")
    assert done.returncode == 2
    assert "Received: no --. Write: python -m tf_largebatch launch --workers N --" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_cluster_inside_a_cluster_is_refused(job):
    done = job.command("--workers", "2", "--", "x.py", TF_CONFIG="{}")
    assert done.returncode == 2
    assert "Received: TF_CONFIG in the environment" in done.stderr
    job_of_two = {"TF_LARGEBATCH_WORKERS": "2", "TF_LARGEBATCH_HOSTS": "j-{index}.s:1"}
    done = job.command("--workers", "2", "--", "x.py", JOB_COMPLETION_INDEX="1", **job_of_two)
    assert done.returncode == 2
    assert "Received: worker 1 of 2" in done.stderr


def test_a_batch_script_may_launch_on_its_own_machine(job):
    variables = {"SLURM_PROCID": "0", "SLURM_NTASKS": "2"}
    status, out, _ = job.run("ready(); print('trains')", workers=1, **variables)
    assert (status, out) == (0, ["[rank 0] trains"])


def test_print_shows_each_workers_command_and_starts_nothing(job):
    (job.path / "worker.py").write_text(PRELUDE)
    done = job.command("--workers", "2", "--print", "--", str(job.path / "worker.py"), "a b")
    assert done.returncode == 0
    lines = done.stdout.splitlines()[1:]
    assert [re.findall(r'"index": (\d)', line) for line in lines] == [["0"], ["1"]]
    assert all("CUDA_VISIBLE_DEVICES=-1" in line for line in lines)
    assert all(line.endswith(f"{job.path / 'worker.py'} 'a b'") for line in lines)
    assert not list(job.path.glob("pid-*"))


def test_print_shows_what_a_clusters_environment_says(job):
    assert job.command("--print").stdout.startswith("single process")
    variables = {
        "JOB_COMPLETION_INDEX": "1",
        "TF_LARGEBATCH_WORKERS": "2",
        "TF_LARGEBATCH_HOSTS": "job-{index}.service:5000",
    }
    done = job.command("--print", **variables)
    assert done.stdout.startswith("worker 1 of 2, number 0 of 1 on its host\n")
    assert '"worker": ["job-0.service:5000", "job-1.service:5000"]' in done.stdout
    done = job.command("--print", TF_CONFIG="{cluster")
    assert done.returncode == 2
    assert "TF_CONFIG must be JSON" in done.stderr and done.stderr.count("\n") == 1


def test_the_launcher_loads_no_framework():
    code = (
        "import sys, tf_largebatch.training.workers.launch.command;"
        "print(sorted(set(sys.modules) & {'keras', 'tensorflow', 'numpy'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
