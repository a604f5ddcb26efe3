"""The environment of TF_CONFIG, SLURM and indexed Jobs, read into one record."""

import dataclasses
import json
import socket

import pytest

from tf_largebatch.records.errors import InputError
from tf_largebatch.training.workers import cluster, slurm
from tf_largebatch.training.workers.cluster import Cluster, resolve
from tf_largebatch.training.workers.gpus import gpu_for_local_rank, visible_gpus


def tf_config(job="worker", index=0, **jobs):
    jobs = jobs or {"worker": ["a:5000", "b:5001"]}
    return {"TF_CONFIG": json.dumps({"cluster": jobs, "task": {"type": job, "index": index}})}


# What srun sets for task 4 of 5 on three nodes; 7 % 1250 * 16 + 12000 = 12112.
SLURM = {
    "SLURM_PROCID": "3",
    "SLURM_NODEID": "1",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "5",
    "SLURM_STEP_NODELIST": "n[08-09],gpu1",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2),1",
    "SLURM_JOB_ID": "7",
}
SLURM_WORKERS = ("n08:12112", "n08:12113", "n09:12112", "n09:12113", "gpu1:12112")
JOB = {
    "JOB_COMPLETION_INDEX": "1",
    "TF_LARGEBATCH_WORKERS": "2",
    "TF_LARGEBATCH_HOSTS": "job-{index}.service:5000",
}


def without(environ, *names):
    return {name: value for name, value in environ.items() if name not in names}


@pytest.mark.parametrize(
    ("environ", "workers", "rank"),
    [
        (tf_config(index=1), ("a:5000", "b:5001"), 1),
        (tf_config(index="1"), ("a:5000", "b:5001"), 1),
        (tf_config("chief", 0, chief=["c:1"], worker=["a:1", "b:1"]), ("c:1", "a:1", "b:1"), 0),
        (tf_config("worker", 1, chief=["c:1"], worker=["a:1", "b:1"]), ("c:1", "a:1", "b:1"), 2),
        (tf_config(worker=["[::1]:5000", "10.0.0.7:1"]), ("[::1]:5000", "10.0.0.7:1"), 0),
        (tf_config(worker=["a:5000"]), ("a:5000",), 0),
        (SLURM, SLURM_WORKERS, 3),
        (without(SLURM, "SLURM_NODEID", "SLURM_LOCALID"), SLURM_WORKERS, 3),
        (
            without(SLURM, "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NODELIST")
            | {"SLURM_NTASKS": "5", "SLURM_JOB_NODELIST": "n[08-09],gpu1"},
            SLURM_WORKERS,
            3,
        ),
        (
            SLURM | {"TF_LARGEBATCH_BASE_PORT": "900"},
            ("n08:900", "n08:901", "n09:900", "n09:901", "gpu1:900"),
            3,
        ),
        (JOB, ("job-0.service:5000", "job-1.service:5000"), 1),
        # The first source decides: Kubeflow on SLURM-like nodes, launch within a step.
        (tf_config() | SLURM | JOB, ("a:5000", "b:5001"), 0),
        (SLURM | JOB, SLURM_WORKERS, 3),
    ],
)
def test_an_environment_gives_these_workers_and_this_rank(environ, workers, rank):
    assert resolve(environ) == Cluster(workers, rank)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"TF_CONFIG": ""},
        {"SLURM_NTASKS": "8", "SLURM_JOB_NODELIST": "n[1-2]"},  # salloc: a shell, not a task
        {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "8"},
        {"SLURM_PROCID": "0", "SLURM_NTASKS": "1"},  # a batch script
        {"SLURM_PROCID": "0", "SLURM_JOB_ID": "7"},  # a batch script without --ntasks
        {"JOB_COMPLETION_INDEX": "3"},  # pods that work alone
    ],
)
def test_an_environment_without_several_workers_is_a_single_process(environ):
    assert resolve(environ) is None


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"TF_CONFIG": "{cluster"}, 'TF_CONFIG must be JSON. Received: TF_CONFIG="{cluster"'),
        ({"TF_CONFIG": "[" * 100_000}, "TF_CONFIG must be JSON"),
        ({"TF_CONFIG": "[]"}, 'must hold an object "cluster"'),
        ({"TF_CONFIG": '{"cluster": {"worker": ["a:1"]}}'}, 'must hold an object "task"'),
        (tf_config(worker="a:1"), 'a list "worker"'),
        (tf_config(worker=["a:1"], ps=["b:1"]), 'Received: {"ps": ["b:1"]}'),
        (tf_config(worker=[]), "at least one worker"),
        (tf_config("chief", chief=["a:1", "b:1"]), "one chief at most"),
        (tf_config(index=2), 'worker 0..1. Received: {"type": "worker", "index": 2}'),
        (tf_config(index=-1), '"index": -1'),
        (tf_config(index=True), '"index": true'),
        (tf_config(index="x"), '"index": "x"'),
        (tf_config("evaluator"), '"type": "evaluator"'),
        (tf_config(["worker"]), '"type": ["worker"]'),
        (tf_config("chief"), '"type": "chief"'),
        (tf_config(worker=["a:1", "A:1"]), "Received: A:1 for workers 0 and 1"),
        (tf_config("chief", chief=["a:1"], worker=["a:1"]), "not repeat an address"),
        (tf_config(worker=["a:1", "b"]), 'Received: "b" for worker 1'),
        (tf_config(worker=["a:0"]), 'Received: "a:0"'),
        (tf_config(worker=["a:65536"]), 'Received: "a:65536"'),
        (tf_config(worker=["http://a:1"]), 'Received: "http://a:1"'),
        (tf_config(worker=["a b:1"]), 'Received: "a b:1"'),
        (tf_config(worker=["a:1\n"]), 'Received: "a:1\\n"'),
        (tf_config(worker=[7]), "Received: 7 for worker 0"),
        (SLURM | {"SLURM_PROCID": "x"}, 'Received: SLURM_PROCID="x"'),
        (SLURM | {"SLURM_PROCID": "5"}, "rank must be in 0..4 for 5 workers"),
        (SLURM | {"SLURM_STEP_NUM_TASKS": "0"}, "at least 1. Received: SLURM_STEP_NUM_TASKS"),
        (SLURM | {"SLURM_STEP_NUM_TASKS": "6"}, "must give 3 nodes 6 tasks"),
        (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "5"}, "(1 nodes, 5 tasks)"),
        (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "2(x2"}, "must look like 2(x3),1"),
        (SLURM | {"SLURM_STEP_NODELIST": "n[08-09"}, 'Received: SLURM_STEP_NODELIST="n[08-09"'),
        (SLURM | {"SLURM_STEP_NODELIST": "n1,n1,n2"}, "not repeat an address"),
        (SLURM | {"SLURM_LOCALID": "0", "SLURM_NODEID": "0"}, "--distribution=block"),
        (SLURM | {"SLURM_LOCALID": "0"}, "as number 0 of node 1"),
        (SLURM | {"SLURM_DISTRIBUTION": "cyclic"}, "SLURM_DISTRIBUTION=cyclic"),
        (SLURM | {"TF_LARGEBATCH_BASE_PORT": "65535"}, 'Received: "n08:65536"'),
        (without(SLURM, "SLURM_JOB_ID"), "SLURM_JOB_ID must be set"),
        (
            without(SLURM, "SLURM_STEP_NODELIST"),
            "SLURM_STEP_NODELIST or SLURM_JOB_NODELIST must be set",
        ),
        # sbatch --ntasks=8 and no srun: the process would wait for seven that nobody starts.
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, "Write srun in front of the command"),
        (JOB | {"JOB_COMPLETION_INDEX": "2"}, "rank must be in 0..1"),
        (JOB | {"TF_LARGEBATCH_WORKERS": "two"}, 'TF_LARGEBATCH_WORKERS="two"'),
        (JOB | {"TF_LARGEBATCH_HOSTS": "job:5000"}, "TF_LARGEBATCH_HOSTS must hold {index}"),
        (JOB | {"TF_LARGEBATCH_HOSTS": "job-{index}"}, 'Received: "job-0"'),
        (without(JOB, "JOB_COMPLETION_INDEX"), "JOB_COMPLETION_INDEX must be set"),
        (without(JOB, "TF_LARGEBATCH_HOSTS"), "TF_LARGEBATCH_HOSTS must be set"),
        (without(JOB, "TF_LARGEBATCH_WORKERS"), "TF_LARGEBATCH_WORKERS must be set"),
    ],
)
def test_a_wrong_environment_is_refused_in_one_line_that_shows_the_value(environ, says):
    with pytest.raises(InputError) as refusal:
        resolve(environ)
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 400


def test_a_cyclic_layout_is_accepted_where_each_node_has_one_task():
    environ = SLURM | {
        "SLURM_DISTRIBUTION": "cyclic",
        "SLURM_STEP_NUM_TASKS": "3",
        "SLURM_STEP_TASKS_PER_NODE": "1(x3)",
        "SLURM_PROCID": "1",
        "SLURM_LOCALID": "0",
    }
    assert resolve(environ).workers == ("n08:12112", "n09:12112", "gpu1:12112")


def test_all_ranks_of_a_step_see_the_same_addresses():
    places = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]
    found = [
        resolve(
            SLURM | {"SLURM_PROCID": str(r), "SLURM_NODEID": str(node), "SLURM_LOCALID": str(local)}
        )
        for r, (node, local) in enumerate(places)
    ]
    assert {c.workers for c in found} == {SLURM_WORKERS}
    assert [c.rank for c in found] == [0, 1, 2, 3, 4]
    assert [(c.local_rank, c.local_size) for c in found] == [(0, 2), (1, 2), (0, 2), (1, 2), (0, 1)]
    assert [c.is_chief for c in found] == [True, False, False, False, False]


def test_jobs_with_neighbouring_numbers_share_no_port_on_a_node():
    ports = {}
    for job in range(2_500):
        environ = SLURM | {
            "SLURM_JOB_ID": str(job),
            "SLURM_STEP_NODELIST": "n1",
            "SLURM_STEP_NUM_TASKS": "16",
            "SLURM_STEP_TASKS_PER_NODE": "16",
            "SLURM_NODEID": "0",
            "SLURM_LOCALID": "3",
        }
        ports[job] = {int(w.rpartition(":")[2]) for w in resolve(environ).workers}
        assert job == 0 or not ports[job] & ports[job - 1]
    assert min(map(min, ports.values())) == 12_000
    assert max(map(max, ports.values())) < 32_768  # Linux gives these to outgoing connections


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("n1", ["n1"]),
        ("n1,n2", ["n1", "n2"]),
        ("n[1-3]", ["n1", "n2", "n3"]),
        ("n[8-11]", ["n8", "n9", "n10", "n11"]),
        ("n[08-11]", ["n08", "n09", "n10", "n11"]),
        ("n[098-101]", ["n098", "n099", "n100", "n101"]),
        ("n[01,3,07-08]-ib", ["n01-ib", "n3-ib", "n07-ib", "n08-ib"]),
        ("r[1-2]n[1-2]", ["r1n1", "r1n2", "r2n1", "r2n2"]),
        (
            "r[1-2]n[01-03,7],gpu5",
            ["r1n01", "r1n02", "r1n03", "r1n7", "r2n01", "r2n02", "r2n03", "r2n7", "gpu5"],
        ),
        ("a[1-2],b-c.d[3],e", ["a1", "a2", "b-c.d3", "e"]),
    ],
)
def test_a_node_list_names_these_hosts_in_this_order(text, names):
    assert slurm.expand_hosts(text) == names


@pytest.mark.parametrize(
    "text",
    ["", ",", "n1,", ",n1", "n1,,n2", "n[", "n]", "n[]", "n[1-]", "n[3-1]", "n[a-b]", "n[1--3]"]
    + ["n[[1-2]]", "n 1", "n[0-99999999999999999999]", "n[1-2],"],
)
def test_a_malformed_node_list_is_refused(text):
    with pytest.raises(InputError, match="SLURM_STEP_NODELIST must look like"):
        slurm.expand_hosts(text)


@pytest.mark.parametrize(
    ("text", "counts"), [("4", [4]), ("2(x3),1", [2, 2, 2, 1]), ("1,3(x2)", [1, 3, 3])]
)
def test_tasks_per_node_repeat_as_slurm_writes_them(text, counts):
    assert slurm.expand_tasks(text) == counts


def test_what_tensorflow_is_told_is_read_back_as_the_same_cluster():
    told = Cluster(("a:1", "b:2", "c:3"), 2)
    assert json.loads(told.to_tf_config()) == {
        "cluster": {"worker": ["a:1", "b:2", "c:3"]},
        "task": {"type": "worker", "index": 2},
    }
    assert resolve({"TF_CONFIG": told.to_tf_config()}) == told


def test_a_cluster_cannot_be_changed_or_empty():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Cluster(("a:1",), 0).rank = 1
    with pytest.raises(InputError, match="at least one"):
        Cluster((), 0)


def gpu_files(folder, count):
    for name in [f"nvidia{i}" for i in range(count)] + ["nvidiactl", "nvidia-uvm", "nvidia-caps"]:
        (folder / name).touch()
    return folder


def test_gpus_are_counted_from_their_device_files(tmp_path):
    assert visible_gpus({}, gpu_files(tmp_path, 3)) == ("0", "1", "2")


@pytest.mark.parametrize(
    ("value", "gpus"),
    [("", ()), ("-1", ()), ("NoDevFiles", ()), ("2, 0", ("2", "0")), ("1,-1,2", ("1",))]
    + [("GPU-8f,MIG-2c", ("GPU-8f", "MIG-2c"))],
)
def test_the_visible_devices_variable_overrules_the_device_files(tmp_path, value, gpus):
    environ = {"CUDA_VISIBLE_DEVICES": value}
    assert visible_gpus(environ, gpu_files(tmp_path, 8)) == gpus


@pytest.mark.parametrize(
    ("workers", "environ", "gpus", "shares"),
    [
        (("a:1", "a:2", "b:1", "b:2"), {}, 2, ["0", "1", "0", "1"]),
        (("a:1", "b:1", "a:2", "b:2"), {}, 2, ["0", "0", "1", "1"]),
        (("a:1", "a:2"), {}, 4, ["0,1", "2,3"]),
        (("a:1", "a:2"), {"CUDA_VISIBLE_DEVICES": "5,3"}, 8, ["5", "3"]),
        (("a:1", "b:1"), {}, 4, [None, None]),  # alone on its host: all of them
        (("a:1", "a:2"), {}, 0, [None, None]),
        (("a:1", "a:2"), {"CUDA_VISIBLE_DEVICES": "1"}, 2, [None, None]),  # bound already
        (
            ("a:1", "a:2"),
            {"CUDA_VISIBLE_DEVICES": "0,1", "SLURM_GPUS_PER_TASK": "h200:2"},
            2,
            [None, None],
        ),
        (("a:1", "a:2"), {"SLURM_GPUS_PER_TASK": "1"}, 2, ["0", "1"]),  # asked for, not bound
        (("a:1", "a:2"), {"TF_LARGEBATCH_GPUS_ASSIGNED": "1"}, 4, [None, None]),
    ],
)
def test_workers_of_one_host_share_out_its_gpus(tmp_path, workers, environ, gpus, shares):
    devices = gpu_files(tmp_path, gpus)
    got = [
        gpu_for_local_rank(Cluster(workers, rank), environ, devices) for rank in range(len(workers))
    ]
    assert got == shares


def test_more_workers_than_gpus_on_a_host_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"each of the 3 workers.*Received: .*=0,1\."):
        gpu_for_local_rank(Cluster(("a:1", "a:2", "a:3"), 0), {}, gpu_files(tmp_path, 2))


def test_a_ready_report_touches_the_named_file_and_nothing_without_a_launcher(tmp_path):
    cluster.report_ready({})
    cluster.report_ready({"TF_LARGEBATCH_READY": str(tmp_path / "ready")})
    assert [p.name for p in tmp_path.iterdir()] == ["ready"]


def test_a_port_in_use_is_refused_by_name_and_one_just_closed_is_not():
    # gRPC listens with SO_REUSEPORT, which must not make the port look free.
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as server:
        port = server.getsockname()[1]
        mine = Cluster((f"a:{port}",), 0)
        with pytest.raises(InputError, match=f"port of worker 0 must be free. Received: a:{port}"):
            cluster.require_free_port(mine)
        with socket.create_connection(server.getsockname()) as client:
            server.accept()[0].close()  # closed on this side first: it stays in TIME_WAIT
            assert client.recv(1) == b""
    cluster.require_free_port(mine)
