"""Wrong environments of workers, and wrong names of commands: for `wrong_inputs.py`."""

import json
from collections.abc import Iterator

from wrong_commands import MARKUP, Command, Wrong, commands

from tf_largebatch import __main__ as front


def wrong_environments() -> Iterator[Wrong]:
    """What a cluster's environment says of the workers, contradicting itself."""
    command = next(c for c in commands() if c.name == "recipes.goyal_256")
    task, two = {"type": "worker", "index": 0}, {"worker": ["a:1", "b:1"]}
    configs = [
        "x",
        "[]",
        "{}",
        "null",
        '"two\nlines"',
        {"cluster": two},
        {"task": task},
        {"cluster": two, "task": {"type": "worker", "index": 2}},
        {"cluster": two, "task": {"type": "ps", "index": 0}},
        {"cluster": {"worker": ["a:1", "a:1"]}, "task": task},
        {"cluster": {"worker": ["a"]}, "task": task},
        {"cluster": {"worker": [f"{MARKUP}:1", "b:1"]}, "task": task},
        {"cluster": {"worker": ["a:70000", "b:1"]}, "task": task},
        {"cluster": {"ps": ["a:1"], **two}, "task": task},
        {"cluster": {"chief": ["a:1", "b:1"]}, "task": task},
        {"cluster": {"worker": []}, "task": task},
    ]
    for config in configs:
        text = config if isinstance(config, str) else json.dumps(config)
        variables = {"TF_CONFIG": text}
        yield _with_environment(command, "TF_CONFIG", variables)
    slurm = {"SLURM_PROCID": "0", "SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2"}
    slurm |= {"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "n[1-2]"}
    slurm |= {"SLURM_STEP_TASKS_PER_NODE": "1(x2)"}
    for name, value in (
        ("SLURM_PROCID", "x"),
        ("SLURM_STEP_NUM_TASKS", "0"),
        ("SLURM_STEP_NODELIST", "n[1-"),
        ("SLURM_STEP_NODELIST", "n[1-99999999]"),
        ("SLURM_STEP_TASKS_PER_NODE", "3(x2)"),
        ("SLURM_JOB_ID", "-1"),
        ("TF_LARGEBATCH_BASE_PORT", "0"),
    ):
        yield _with_environment(command, name, slurm | {name: value})
    indexed = {"JOB_COMPLETION_INDEX": "0", "TF_LARGEBATCH_WORKERS": "2"}
    for name, value in (
        ("TF_LARGEBATCH_HOSTS", "node:5000"),
        ("TF_LARGEBATCH_HOSTS", "job-{index}"),
        ("TF_LARGEBATCH_WORKERS", "many"),
        ("JOB_COMPLETION_INDEX", "x"),
    ):
        hosts = {"TF_LARGEBATCH_HOSTS": "job-{index}.service:5000"}
        yield _with_environment(command, name, indexed | hosts | {name: value})


def _with_environment(command: Command, name: str, variables: dict[str, str]) -> Wrong:
    wrong = command.wrong("environment", [name], "", [], environment=variables)
    text = f"{name}={ascii(variables[name])[1:-1]} {wrong.text}"
    return Wrong(**{**vars(wrong), "text": text[:200]})


def wrong_names() -> Iterator[Wrong]:
    """Commands, recipes and studies that there are not."""
    words = ("", "goyal_8", "GOYAL_8K", "goyal-8k", MARKUP, "a" * 300, "..", "nothing\nhere")
    for before in ((), ("plan",), ("job", "--on=local"), ("study",)):
        for word in words:
            if before or word:
                line = [*before, word]
                yield Wrong(
                    kind="name",
                    where=" ".join(before[:1]) or "tf-largebatch",
                    names=("COMMAND", "recipe", "study", "NAME"),
                    value=word[:5],
                    run=lambda line=line: front.main(line),
                    text=ascii(" ".join(line))[1:-1][:200],
                )
    for line in (["plan"], ["job"], ["job", "goyal_8k"], ["launch"], ["prepare"]):
        yield Wrong(
            kind="name",
            where=line[0],
            names=("NAME", "--on", "--", "SOURCE"),
            value="",
            run=lambda line=line: front.main(line),
            text=" ".join(line),
        )
