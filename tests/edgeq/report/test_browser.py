"""A real browser shows the page: a picture that is not blank, and nothing on the console."""

import subprocess

import matplotlib.image
import numpy as np
import pytest

from edgeq.report import write_report

pytestmark = pytest.mark.needs("browser")

WIDTH, HEIGHT = 1000, 3000


def open_page(page, folder):
    """Opens a page offline; returns its picture as uint8 ``[height, width, 3]`` and the console's lines."""
    picture = folder / "page.png"
    command = [
        "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", "--hide-scrollbars",
        f"--user-data-dir={folder / 'profile'}", f"--window-size={WIDTH},{HEIGHT}",
        f"--screenshot={picture}", page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert picture.is_file(), done.stderr[-2000:]
    pixels = matplotlib.image.imread(picture)[:, :, :3]
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return np.round(pixels * 255).astype(np.uint8), console


def share(pixels, colour, tolerance=12):
    """Share of the picture's pixels that are of one colour."""
    return float((np.abs(pixels.astype(int) - colour).max(axis=2) <= tolerance).mean())


def test_the_page_shows_text_and_plots_and_logs_nothing(results, write_run, tmp_path):
    folder = write_run(results)
    write_report(folder)
    pixels, console = open_page(folder / "report.html", tmp_path)
    assert console == []
    assert pixels.shape == (HEIGHT, WIDTH, 3)
    assert share(pixels, (0x00, 0x72, 0xB2)) > 0.005, "the blue bars of the plots are missing"
    assert share(pixels, (0xEA, 0xF6, 0xF0)) > 0.002, "the green boxes of good verdicts are missing"
    assert 0.3 < share(pixels, (255, 255, 255)) < 0.98


def test_the_check_itself_sees_a_console_message_and_a_blank_page(tmp_path):
    page = tmp_path / "bad.html"
    page.write_text("<!DOCTYPE html><meta charset='utf-8'><script>console.error('oh')</script>")
    pixels, console = open_page(page, tmp_path)
    assert len(console) == 1
    assert share(pixels, (0x00, 0x72, 0xB2)) == 0.0
