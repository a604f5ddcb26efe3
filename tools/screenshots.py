"""Takes pictures of a run folder's TensorBoard pages and reports in headless Chromium.

    python tools/screenshots.py RUN [--out DIR]

Starts TensorBoard on this machine only, opens its pages and every report under RUN (as on a desk,
on a phone of 390 px, and as printed), and writes PNG and PDF files. Exit status 0: done; 1: a page
raised an error; 2: wrong input; 77: skipped, with the reason, where no browser is installed.
"""

import argparse
import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

SKIPPED = 77
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
DESK, PHONE = (1280, 900), (390, 844)
TALLEST = 16_000  # pixels of a picture: Chromium draws no more
# Pages of TensorBoard, by their address after the #.
BOARDS = ("timeseries", "scalars", "custom_scalars", "hparams", "text", "images")
BOARDS += ("histograms", "distributions")
SETTLE_SECONDS = 6.0  # TensorBoard draws when its data has come


class Browser:
    """Chromium, driven over a pipe: no port, no further package.

    Args:
        path: of the program.
        profile: an empty folder.

    Attributes:
        errors: what pages raised, (address, text).
    """

    def __init__(self, path: str, profile: Path):
        ours, theirs = os.pipe(), os.pipe()  # (read, write): to it, from it

        def join():  # the browser reads from 3 and writes to 4
            read, write = os.dup(ours[0]), os.dup(theirs[1])
            os.dup2(read, 3)
            os.dup2(write, 4)

        self._process = subprocess.Popen(
            [path, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=join,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(ours[0])
        os.close(theirs[1])
        self._to, self._from = os.fdopen(ours[1], "wb"), os.fdopen(theirs[0], "rb")
        self._number, self._address, self.errors = 0, "", []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters) -> dict:
        """Sends one command of the DevTools protocol to the page; returns its result."""
        return self._call(method, self._session, **parameters)

    def open(self, address: str, size: tuple[int, int], *, settle: float, scale: float = 1) -> None:
        """Loads a page afresh at a size in pixels and lets it draw for `settle` seconds."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=size[0],
            height=size[1],
            deviceScaleFactor=scale,
            mobile=size == PHONE,
        )
        self._address = address
        self.call("Page.navigate", url="about:blank")  # else a change after # loads nothing
        self.call("Page.navigate", url=address)
        end = time.monotonic() + settle
        while time.monotonic() < end:
            time.sleep(0.2)
            self.evaluate("0")  # takes in the events that came

    def evaluate(self, code: str):
        """Returns the value of a JavaScript expression on the page."""
        return self.call("Runtime.evaluate", expression=code, returnByValue=True)["result"].get(
            "value"
        )

    def picture(self, path: Path, *, whole: bool) -> None:
        """Writes what is shown, or the whole page, as PNG."""
        options = {}
        if whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            height = min(size["height"], TALLEST)
            clip = {"x": 0, "y": 0, "width": size["width"], "height": height, "scale": 1}
            options = {"captureBeyondViewport": True, "clip": clip}
        data = self.call("Page.captureScreenshot", format="png", **options)["data"]
        path.write_bytes(base64.b64decode(data))

    def print(self, path: Path) -> None:
        """Writes the page as it is printed: PDF, A4."""
        data = self.call("Page.printToPDF", paperWidth=8.27, paperHeight=11.69)["data"]
        path.write_bytes(base64.b64decode(data))

    def close(self) -> None:
        """Ends the browser."""
        end(self._process)
        self._to.close()
        self._from.close()

    def _call(self, method: str, session: str | None = None, **parameters) -> dict:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        self._to.write(json.dumps(message).encode() + b"\0")
        self._to.flush()
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self._note(answer)

    def _read(self) -> dict:
        data = bytearray()
        while (byte := self._from.read(1)) != b"\0":
            if not byte:
                raise RuntimeError("the browser has ended")
            data += byte
        return json.loads(data)

    def _note(self, event: dict) -> None:
        if event.get("method") == "Runtime.exceptionThrown":
            details = event["params"]["exceptionDetails"]
            text = details.get("exception", {}).get("description") or details.get("text", "")
            self.errors.append((self._address, text.splitlines()[0]))


def end(process: subprocess.Popen) -> None:
    """Ends a process that leads a group, with its children."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
            process.wait(timeout=10)
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def start_tensorboard(folder: Path) -> tuple[subprocess.Popen, str]:
    """Starts TensorBoard on a free port of this machine; returns it and its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder)]
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port), "--load_fast", "false"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{port}"
    for _ in range(240):
        try:
            if fetch(f"{address}/data/runs"):
                return process, address
        except OSError:
            pass
        if process.poll() is not None:
            break
        time.sleep(0.5)
    end(process)
    raise SystemExit(f"TensorBoard did not show a run of {folder}")


def fetch(address: str):
    """Returns the JSON behind an address of this machine."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(address, timeout=30) as answer:
        return json.load(answer)


def take_boards(browser: Browser, address: str, out: Path) -> list[Path]:
    """Takes TensorBoard's pages that have something to show."""
    plugins = fetch(f"{address}/data/plugins_listing")
    taken = []
    for board in BOARDS:
        if plugins.get(board, {}).get("enabled") or board == "timeseries":
            browser.open(f"{address}/#{board}", DESK, settle=SETTLE_SECONDS)
            taken.append(out / f"tensorboard_{board}.png")
            browser.picture(taken[-1], whole=False)
    return taken


def take_report(browser: Browser, page: Path, name: str, out: Path) -> list[Path]:
    """Takes one page on a desk and on a phone, and as printed."""
    taken = []
    for label, size in (("desk", DESK), ("phone", PHONE)):
        browser.open(page.resolve().as_uri(), size, settle=0.5)
        wide = browser.evaluate("document.documentElement.scrollWidth")
        if wide > size[0]:
            browser.errors.append(
                (f"{page} ({label})", f"{wide} px wide where {size[0]} are there")
            )
        taken.append(out / f"{name}_{label}.png")
        browser.picture(taken[-1], whole=True)
    taken.append(out / f"{name}.pdf")
    browser.print(taken[-1])
    return taken


def find_pages(run: Path) -> dict[str, Path]:
    """Returns name -> page of the reports in and below a folder, at most three of them."""
    found = [run / name for name in ("report.html", "comparison.html") if (run / name).exists()]
    below = sorted(path for path in run.glob("*/seed-*/report.html"))
    measured = [path for path in below if (path.parent / "diagnostics").is_dir()]
    found += (measured or below)[:1]
    return {"_".join(path.relative_to(run).with_suffix("").parts): path for path in found}


def main() -> None:
    """Takes the pictures and names them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder, or one of several")
    parser.add_argument("--out", type=Path, metavar="DIR", help="(default: RUN/screenshots)")
    parser.add_argument("--reports-only", action="store_true", help="leave TensorBoard out")
    arguments = parser.parse_args()
    if not arguments.run.is_dir():
        parser.error(f"RUN must be a folder. Received: {arguments.run}")
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        print(f"skipped: no browser is installed ({', '.join(NAMES)})")
        sys.exit(SKIPPED)
    out = arguments.out or arguments.run / "screenshots"
    out.mkdir(parents=True, exist_ok=True)
    taken, board = [], None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(program, Path(profile))
        try:
            for name, page in find_pages(arguments.run).items():
                taken += take_report(browser, page, name, out)
            if not arguments.reports_only:
                board, address = start_tensorboard(arguments.run)
                taken += take_boards(browser, address, out)
        finally:
            browser.close()
            if board is not None:
                end(board)
    print("\n".join(map(str, taken)))
    for where, what in browser.errors:
        print(f"error on {where}: {what}", file=sys.stderr)
    sys.exit(1 if browser.errors else 0)


if __name__ == "__main__":
    main()
