"""The custom-scalar page: what a person asks first, then a category a paper; no empty chart."""

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.custom_scalar import layout_pb2, metadata
from tensorboard.util import tensor_util

# Category: charts as (title, patterns of tags).
CHARTS = {
    # Epochs are the axis that runs of every batch share.
    "Does it work?": (
        ("error, % against epoch", (r"^epoch/error_pct$",)),
        ("loss against epoch", (r"^epoch/loss$",)),
        ("noise scale and batch against update", (r"^noise/b_simple$", r"^global_batch$")),
        ("loss of an update against images seen", (r"^images_seen/loss$",)),
    ),
    "Goyal": (
        ("error, % against epoch", (r"^epoch/error_pct$",)),
        ("loss against update", (r"^step/loss$",)),
        ("learning rate against update", (r"^optimizer/learning_rate$",)),
    ),
    "You": (
        ("trust ratio by layer, log10", (r"^trust_ratio/",)),
        ("update over weight norm by layer, log10", (r"^update_ratio/",)),
    ),
    "McCandlish": (
        ("noise scale and batch against update", (r"^noise/b_simple$", r"^global_batch$")),
    ),
    "Smith, Mikami": (
        ("batch against update", (r"^global_batch$",)),
        ("images seen against update", (r"^images_seen$",)),
    ),
}


def make_layout(*, adapts: bool, noise: bool, grows: bool) -> layout_pb2.Layout:
    """Returns the page of a run.

    Whether its optimizer `adapts` by a trust ratio, its `noise` scale is measured and its batch
    `grows` decides what is on it.
    """
    layout = layout_pb2.Layout()
    for title, charts in CHARTS.items():
        if {"McCandlish": noise, "Smith, Mikami": grows}.get(title, True):
            category = layout.category.add(title=title)
            for name, patterns in charts:
                if {"trust": adapts, "noise": noise}.get(name.split()[0], True):
                    category.chart.add(title=name).multiline.tag.extend(patterns)
    return layout


def make_rows_layout(reference: str) -> layout_pb2.Layout:
    """Returns the page of a command's rows, which are held against the row `reference`."""
    layout = layout_pb2.Layout()
    category = layout.category.add(title="Does it work?")
    for name, tag in (
        ("error, % against epoch", "epoch/error_pct"),
        (f"error above that of {reference}, points, against epoch", "gap/error_points"),
        ("validation error, % against images seen", "images_seen/error_pct"),
    ):
        category.chart.add(title=name).multiline.tag.append(f"^{tag}$")
    return layout


def layout_point(layout: layout_pb2.Layout) -> Summary:
    """The page as a point, as `tensorboard.plugins.custom_scalar.summary` needs TensorFlow for."""
    point, about = Summary(), metadata.create_summary_metadata()
    tensor = tensor_util.make_tensor_proto(layout.SerializeToString())
    point.value.add(tag=metadata.CONFIG_SUMMARY_TAG, metadata=about, tensor=tensor)
    return point
