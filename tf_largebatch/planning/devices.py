"""Accelerators as data sheets give them, and the published systems whose time per update is known.

Peaks are of dense products in the precision that the systems trained in. [data sheets, quoted from
memory, except where the source says otherwise]
"""

import re
from dataclasses import dataclass

from tf_largebatch.records import published
from tf_largebatch.records.checks import check
from tf_largebatch.records.datasets import DATASETS
from tf_largebatch.records.published import PublishedResult


@dataclass(frozen=True)
class Device:
    """One accelerator; for TPUs a chip of two cores."""

    name: str  # as a command line has it
    title: str
    teraflops: float  # 1e12 operations a second, a multiplication and an addition being two
    precision: str  # of that peak
    memory_gb: float  # 1e9 bytes
    memory_gb_s: float  # 1e9 bytes a second between it and its memory

    @property
    def matrix_units(self) -> bool:
        """Whether the peak is that of units for matrix products (tensor cores, MXU, cubes)."""
        return self.precision != "float32"


DEVICES = {
    device.name: device
    for device in (
        Device("p100", "NVIDIA P100", 10.6, "float32", 16, 732),
        Device("p40", "NVIDIA P40", 11.8, "float32", 24, 346),
        Device("knl", "Intel Xeon Phi 7250", 6.0, "float32", 16, 450),
        Device("v100", "NVIDIA V100", 125, "float16", 32, 900),
        Device("a100", "NVIDIA A100", 312, "float16", 80, 2039),
        Device("h100", "NVIDIA H100", 989, "float16", 80, 3350),
        Device("tpu-v3", "TPU v3 chip", 123, "bfloat16", 32, 900),
        Device("tpu-v4", "TPU v4 chip", 275, "bfloat16", 32, 1200),
        Device("ascend-910", "Huawei Ascend 910", 256, "float16", 32, 1200),
    )
}

# id in published.json: device and how many. TPUs are counted in cores in MLPerf's names. A node has
# 8 V100 (DGX-1, DSS 8440), 16 (DGX-2), 4 (C4140) or 8 A100 (DGX A100, the other DSS 8440).
SYSTEMS = {
    "he2016-256": ("p100", 8),
    "goyal2017-8k-slides": ("p100", 256),
    "akiba2017-32k": ("p100", 1024),
    "you2017-32k-90ep": ("knl", 2048),
    "you2017-32k-64ep": ("knl", 2048),
    "jia2018-64k": ("p40", 2048),
    "ying2018-32k": ("tpu-v3", 1024),
    "mikami2018-55k": ("v100", 3456),
    "yamazaki2019-80k": ("v100", 2048),
    "mlperf-v0.6-fujitsu-abci_2048xV100_mxnet": ("v100", 2048),
    "mlperf-v0.6-google-tpu-v3-32": ("tpu-v3", 16),
    "mlperf-v0.6-google-tpu-v3-128": ("tpu-v3", 64),
    "mlperf-v0.6-google-tpu-v3-256": ("tpu-v3", 128),
    "mlperf-v0.6-google-tpu-v3-512": ("tpu-v3", 256),
    "mlperf-v0.6-google-tpu-v3-1024": ("tpu-v3", 512),
    "mlperf-v0.6-google-tpu-v3-2048": ("tpu-v3", 1024),
    "mlperf-v0.6-nvidia-dgx1_ngc19.05_mxnet": ("v100", 8),
    "mlperf-v0.6-nvidia-dgx2_ngc19.05_mxnet": ("v100", 16),
    "mlperf-v0.6-nvidia-dgx2h_ngc19.05_mxnet": ("v100", 16),
    "mlperf-v0.6-nvidia-dgx2h_n32_ngc19.05_mxnet": ("v100", 512),
    "mlperf-v0.6-nvidia-dgx1_n130_ngc19.05_mxnet": ("v100", 1040),
    "mlperf-v0.6-nvidia-dgx2h_n96_ngc19.05_mxnet": ("v100", 1536),
    "mlperf-v0.7-dellemc-C4140": ("v100", 4),
    "mlperf-v0.7-dellemc-2xC4140": ("v100", 8),
    "mlperf-v0.7-dellemc-4xC4140": ("v100", 16),
    "mlperf-v0.7-dellemc-DSS8440": ("v100", 8),
    "mlperf-v0.7-google-gpu-v100-8-TF2.0": ("v100", 8),
    "mlperf-v0.7-google-tpu-v3-32-TF2.0": ("tpu-v3", 16),
    "mlperf-v0.7-google-tpu-v3-8192-TF": ("tpu-v3", 4096),
    "mlperf-v0.7-google-tpu-v3-8192-JAX": ("tpu-v3", 4096),
    "mlperf-v0.7-google-tpu-v4-16-TF": ("tpu-v4", 8),
    "mlperf-v0.7-google-tpu-v4-128-TF": ("tpu-v4", 64),
    "mlperf-v0.7-google-tpu-v4-512-TF": ("tpu-v4", 256),
    "mlperf-v0.7-nvidia-dgx1_ngc20.06_mxnet": ("v100", 8),
    "mlperf-v0.7-nvidia-dgx2h_ngc20.06_mxnet": ("v100", 16),
    "mlperf-v0.7-nvidia-dgx2h_n32_ngc20.06_mxnet": ("v100", 512),
    "mlperf-v0.7-nvidia-dgxa100_ngc20.06_mxnet": ("a100", 8),
    "mlperf-v0.7-nvidia-dgxa100_n2_ngc20.06_mxnet": ("a100", 16),
    "mlperf-v0.7-nvidia-dgxa100_n96_ngc20.06_mxnet": ("a100", 768),
    "mlperf-v1.0-dell-3xDSS8440x8A100-PCIE-40GB": ("a100", 24),
    "mlperf-v1.0-nvidia-dgxa100_ngc21.05_mxnet": ("a100", 8),
    "mlperf-v1.0-nvidia-dgxa100_n8_ngc21.05_mxnet": ("a100", 64),
    "mlperf-v1.0-google-tpu-v4-128-TF": ("tpu-v4", 64),
    "mlperf-v1.0-google-tpu-v4-4096-TF": ("tpu-v4", 2048),
    "mlperf-v1.0-google-tpu-v4-6912-TF": ("tpu-v4", 3456),
    "mlperf-v1.0-pcl-CloudBrainII_256_mindspore_close": ("ascend-910", 256),
    "mlperf-v1.0-pcl-CloudBrainII_1024_mindspore_close": ("ascend-910", 1024),
}
SECONDS = {"h": 3600.0, "min": 60.0}


@dataclass(frozen=True)
class System:
    """A published system that trained ResNet-50 at 224 px."""

    id: str  # of its row in published.json
    device: Device
    devices: int
    global_batch: int
    seconds: float  # of an update, evaluations included where only the whole time is known

    @property
    def group(self) -> str:
        """Who: rows of one group are left out together. MLPerf's are a round and a submitter."""
        parts = self.id.split("-")
        return "-".join(parts[:3]) if parts[0] == "mlperf" else re.split(r"\d", self.id)[0]


def load_systems() -> list[System]:
    """Returns every system whose time per update is stated, or follows from time and updates."""
    rows = published.load()
    found = []
    for identity, (device, count) in SYSTEMS.items():
        check(identity in rows, "SYSTEMS", "ids of published.json", identity)
        row = rows[identity]
        batch = int(row.global_batch or 0)
        found.append(System(identity, DEVICES[device], count, batch, _seconds(row, batch)))
    return found


def _seconds(row: PublishedResult, batch: int) -> float:
    if stated := re.search(r"([\d.]+) s/step", row.time or ""):
        return float(stated[1])
    whole = re.match(r"([\d.]+) (h|min)", row.time or "")
    check(whole is not None, "time", "hours or minutes", row.time)
    images = DATASETS["imagenet2012"].train_examples
    updates = row.updates or (row.epochs or 0) * images / batch
    return float(whole[1]) * SECONDS[whole[2]] / updates  # type: ignore[index]  # checked
