"""Packages that not every user needs, and the one line that names the extra that brings them."""

from tf_largebatch.records.errors import InputError

# Extra of pyproject.toml -> what is imported from it -> its package. "": the core itself.
EXTRAS = {
    "": {"tensorflow": "tensorflow", "keras": "keras", "numpy": "numpy"},
    "review": {
        "tensorboard": "tensorboard",
        "matplotlib": "matplotlib",
        "jinja2": "jinja2",
        "scipy": "scipy",
        "PIL": "pillow",
    },
    "digits": {"sklearn": "scikit-learn"},
    "augment": {"keras_cv": "keras-cv"},
    "jax": {"jax": "jax"},
    "tpu": {"cloud_tpu_client": "cloud-tpu-client", "googleapiclient": "cloud-tpu-client"},
}


def describe(module: str) -> str | None:
    """Returns what to install where a module is missing; None for one that this table lacks.

    >>> describe("sklearn.datasets")
    'scikit-learn is not installed. Run pip install "tf-largebatch[digits]"'
    """
    top = module.partition(".")[0]
    for extra, packages in EXTRAS.items():
        if top in packages:
            name = f"tf-largebatch[{extra}]" if extra else "tf-largebatch"
            return f'{packages[top]} is not installed. Run pip install "{name}"'
    return None


def require(*extras: str, but: str = "") -> None:
    """InputError where a package of these extras is missing, found without importing it.

    `but` is the module of one that this command does without.
    """
    import importlib.metadata  # takes a while

    for extra in extras:
        for module, package in EXTRAS[extra].items():
            if module == but:
                continue
            try:
                importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                raise InputError(describe(module)) from None
