"""How the records check their values."""


def check(ok: bool, name: str, rule: str, value: object) -> None:
    """Raises ValueError unless `ok`."""
    if not ok:
        raise ValueError(f"`{name}` must be {rule}. Received: {name}={value!r}")


def check_at_least(least: float, **values: float) -> None:
    """The same for several values with one lower end; a name's first `_` stands for a dot."""
    for name, value in values.items():
        check(value >= least, name.replace("_", ".", 1), f"at least {least:g}", value)
