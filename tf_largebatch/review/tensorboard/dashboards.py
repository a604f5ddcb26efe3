"""The custom-scalar page: one category a paper, with charts only of what a run has."""

from tensorboard.plugins.custom_scalar import layout_pb2

# Category: charts as (title, patterns of tags).
GOYAL = "Goyal"
CHARTS = {
    GOYAL: (
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

    Args:
        adapts: its optimizer has a trust ratio.
        noise: its noise scale is measured.
        grows: its batch changes.
    """
    shown = {GOYAL: True, "You": True, "McCandlish": noise, "Smith, Mikami": grows}
    categories = []
    for title, charts in CHARTS.items():
        if not shown[title]:
            continue
        made = [
            layout_pb2.Chart(
                title=name, multiline=layout_pb2.MultilineChartContent(tag=list(patterns))
            )
            for name, patterns in charts
            if adapts or not name.startswith("trust ratio")
        ]
        categories.append(layout_pb2.Category(title=title, chart=made))
    return layout_pb2.Layout(category=categories)
