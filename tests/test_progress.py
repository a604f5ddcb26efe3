"""One progress for all that lasts: a line on a terminal that is renewed, lines in a log."""

import io

import pytest

from tf_largebatch.diagnostics.progress import InstrumentProgress
from tf_largebatch.records.progress import ProgressLine, draw_bar, time_left
from tf_largebatch.review.progress import TrainingProgress


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def update(progress, number, **logs):
    logs = {"loss": 0.5, "learning_rate": 0.1, "images_per_sec": 1000.4} | logs
    progress.on_train_batch_end(number, logs)


def end_epoch(progress, epoch, error):
    progress.on_epoch_end(epoch, {"train_loss": 0.25, "validation_error_pct": error})


def train(stream, clock, *, seconds, done=0):
    """Three epochs of ten updates, each of so many seconds."""
    progress = TrainingProgress(
        "large", updates=30, epochs=3.0, done=done, stream=stream, clock=clock
    )
    progress.on_train_begin({})
    for epoch in range(done // 10, 3):
        progress.on_epoch_begin(epoch, {})
        for number in range(10):
            clock.now += seconds
            update(progress, 10 * epoch + number)
        end_epoch(progress, epoch, 12.345)
    progress.on_train_end({})


def test_a_log_gets_its_first_line_at_once_and_one_every_epoch():
    stream = io.StringIO()
    train(stream, Clock(), seconds=0.1)
    first, *lines = stream.getvalue().splitlines()
    assert first == "large: starts at update 0 of 30, compiled first"
    assert lines == [
        # A tenth of a second an update: after ten of them two seconds for twenty more.
        "large: epoch 1 of 3, update 10 of 30, loss 0.25, error 12.35 %, rate 0.1, "
        "1,000 images/s, 2 s left",
        "large: epoch 2 of 3, update 20 of 30, loss 0.25, error 12.35 %, rate 0.1, "
        "1,000 images/s, 1 s left",
        "large: epoch 3 of 3, update 30 of 30, loss 0.25, error 12.35 %, rate 0.1, "
        "1,000 images/s, 0 s left",
    ]


def test_a_log_of_long_epochs_gets_a_line_at_least_every_minute():
    stream, clock = io.StringIO(), Clock()
    train(stream, clock, seconds=50)
    updates = [line.split("update ")[1].split(" ")[0] for line in stream.getvalue().splitlines()]
    assert list(dict.fromkeys(updates)) == [str(n) for n in range(31)]
    assert "epoch 1 of 3, update 1 of 30, loss 0.5, rate 0.1" in stream.getvalue()


def test_a_run_that_is_continued_takes_its_time_from_where_it_began():
    stream = io.StringIO()
    train(stream, Clock(), seconds=0.1, done=10)
    first, second, _ = stream.getvalue().splitlines()
    assert first == "large: starts at update 10 of 30, compiled first"
    assert "update 20 of 30" in second and second.endswith("1 s left")


def test_a_terminal_gets_one_line_with_a_bar():
    stream = Terminal()
    train(stream, Clock(), seconds=0.01)
    text = stream.getvalue()
    assert text.count("\n") == 1 and text.endswith("\n")
    assert draw_bar(20, 30) in text


def test_a_line_is_no_wider_than_the_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    stream = Terminal()
    ProgressLine(stream, Clock()).show("x" * 99)
    assert stream.getvalue().count("x") == 39


def test_an_instrument_tells_the_time_left_where_the_batches_are_known():
    stream, clock = io.StringIO(), Clock()
    progress = InstrumentProgress(stream, clock)
    for total in (4, None):
        progress.start("layers", total)
        for _ in range(2):
            clock.now += 60
            progress.advance()
    assert stream.getvalue().splitlines() == [
        "layers ...",
        "layers: 1 of 4 batches, 3 min 0 s left",
        "layers: 2 of 4 batches, 2 min 0 s left",
        "layers ...",
        "layers: 1 batches",
        "layers: 2 batches",
    ]


@pytest.mark.parametrize(("done", "full"), [(0, 0), (1, 5), (4, 20), (9, 20)])
def test_the_bar_is_as_full_as_the_work_is_done(done, full):
    assert draw_bar(done, 4) == "━" * full + "─" * (20 - full)


def test_nothing_is_said_of_the_time_before_anything_is_done():
    assert time_left(5.0, 0, 10) == ""
