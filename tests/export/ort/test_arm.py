"""The library for ARM, in ONNX Runtime for ARM, under the emulator of each core: the same bits as here."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgeq.export.ort import build_library
from edgeq.targets.builtin.target import load_target
from edgeq.targets.toolchain.linkers import find_linker, run_compiler

CORES = ["cortex-a53", "cortex-a76", "max"]
RUNTIME = Path(sys.prefix) / "onnxruntime-aarch64" / "sherpa_onnx" / "lib" / "libonnxruntime.so"
CPUINFO = """processor\t: {number}
Features\t: fp asimd
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd03
CPU revision\t: 4

"""


@pytest.fixture(scope="module")
def arm(tmp_path_factory, needs):
    """A folder with the library, the program that runs it, and what ONNX Runtime wants to read about processors.

    The emulator lets programs read the files of this machine's processor, of which ONNX Runtime for ARM dies.
    """
    needs("onnxruntime-arm64", "arm64-emulator")
    target, folder = load_target("cortex-a76"), tmp_path_factory.mktemp("arm")
    build_library(folder, target=target, bits=(2,))
    source = Path(__file__).parent / "run_model.c"
    arguments = ["-std=gnu11", "-O1", "-o", str(folder / "run_model"), str(source), "-ldl"]
    run_compiler(find_linker(target), arguments, purpose="build run_model")
    processors = folder / "root" / "sys" / "devices" / "system" / "cpu"
    processors.mkdir(parents=True)
    for name in ("possible", "present"):
        (processors / name).write_text("0-1\n", encoding="ascii")
    (folder / "root" / "proc").mkdir()
    text = "".join(CPUINFO.format(number=number) for number in range(2))
    (folder / "root" / "proc" / "cpuinfo").write_text(text, encoding="ascii")
    (folder / "root" / "lib").symlink_to(Path(target.emulator.sysroot) / "lib")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize(("zero_point", "activation"), [(1.0, "dynamic"), (1.5, "static"), (2.0, "none")])
def test_the_same_bits_on_arm(zero_point, activation, core, arm, operator_model, small_library, open_session, tmp_path):
    model = operator_model(zero_point=zero_point, activation=activation, rows=45, columns=147)
    inputs = model.inputs(1, 9)
    onnx.save(model.proto, tmp_path / "model.onnx")
    (tmp_path / "in").write_bytes(inputs["x"].tobytes() + inputs["ids"].tobytes())
    emulator = ["qemu-aarch64-static", "-cpu", core, "-L", str(arm / "root")]
    files = [arm / "run_model", RUNTIME, arm / "libedgeq_ort.so", tmp_path / "model.onnx", tmp_path / "in"]
    subprocess.run([*emulator, *map(str, files), "45", "147", "9", str(tmp_path / "out")], check=True, timeout=300)
    got = np.fromfile(tmp_path / "out", np.float32)
    y, z = open_session(model.proto, small_library).run(None, inputs)
    np.testing.assert_array_equal(got[: 9 * 45], y.ravel())
    np.testing.assert_array_equal(got[9 * 45 :], z.ravel())
