import ast
import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import edgeq
from edgeq.errors import FormatError, UnsupportedError, UsageError
from edgeq.targets.runtime import native
from edgeq.targets.runtime.forking import OF_CALLS
from edgeq.targets.runtime.manifest import read_manifest, write_manifest
from edgeq.targets.runtime.threads import choose_threads

IDS = np.array([[2, 5, 9, 3], [2, 7, 3, 0]])
MASK = np.array([[1, 1, 1, 1], [1, 1, 1, 0]])


@pytest.fixture
def bundle(host_bundle):
    return edgeq.load(host_bundle)


def _expected(host_bundle, ids, mask):
    manifest = read_manifest(host_bundle)
    data = (host_bundle / "weights.bin").read_bytes()
    table, matrix = (
        np.frombuffer(data, t.dtype, t.bytes // 4, t.offset).reshape(t.shape) for t in manifest.weights
    )
    return (table[ids] @ matrix) * mask[..., None].astype(np.float32)


def test_outputs_are_the_models(bundle, host_bundle):
    out = bundle(input_ids=IDS, attention_mask=MASK)
    assert list(out) == ["last_hidden_state"]
    np.testing.assert_array_equal(out["last_hidden_state"], _expected(host_bundle, IDS, MASK))


def test_any_batch_and_length_up_to_the_limit(bundle, host_bundle):
    rng = np.random.default_rng(0)
    for shape in [(1, 1), (1, 40), (3, 17), (5, 2), *((1, n) for n in range(3, 23))]:
        ids = rng.integers(0, 23, shape)
        mask = np.ones_like(ids)
        out = bundle(input_ids=ids, attention_mask=mask)["last_hidden_state"]
        np.testing.assert_array_equal(out, _expected(host_bundle, ids, mask))


def test_inputs_with_a_default_may_be_left_out(bundle):
    full = bundle(input_ids=IDS, attention_mask=np.ones_like(IDS))
    short = bundle(input_ids=IDS.astype(np.int32))
    np.testing.assert_array_equal(full["last_hidden_state"], short["last_hidden_state"])


def test_golden_output_agrees_and_a_changed_one_does_not(bundle, host_bundle, copy_of):
    assert bundle.self_test().ok
    damaged = copy_of(host_bundle)
    manifest = read_manifest(damaged)
    data = bytearray((damaged / "golden.bin").read_bytes())
    data[manifest.golden[0].outputs[0].offset] ^= 1
    (damaged / "golden.bin").write_bytes(data)
    result = edgeq.load(damaged, verify=False).self_test()
    assert not result.ok
    assert "differs from the golden one in 1 of 216 values" in result.detail


def test_weights_are_mapped_not_copied(bundle, host_bundle):
    with open("/proc/self/maps") as maps:
        mapped = [line for line in maps if str((host_bundle / "weights.bin").resolve()) in line]
    assert mapped
    name = str(host_bundle / "weights.bin")
    before = (host_bundle / "weights.bin").read_bytes()
    bundle(input_ids=IDS)
    assert (host_bundle / "weights.bin").read_bytes() == before, name


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "'input_ids' is missing"),
        ({"input_id": IDS}, "no input 'input_id'; did you mean 'input_ids'"),
        ({"input_ids": IDS.astype(np.float32)}, "must be an array of int64, found float32"),
        ({"input_ids": IDS[0]}, r"must have shape \[batch, sequence\], found \[4\]"),
        ({"input_ids": IDS[:, :0]}, "has size 0, which is not possible"),
        ({"input_ids": IDS + 30}, r"holds 32; values lie in 0\.\.22"),
        ({"input_ids": IDS - 1}, r"holds -1; values lie in 0\.\.22"),
        ({"input_ids": np.array([[2**63]], np.uint64)}, "holds values that do not fit int64"),
        ({"input_ids": IDS, "attention_mask": MASK * 2}, r"holds 2; values lie in 0\.\.1"),
        ({"input_ids": IDS, "attention_mask": MASK[:, :3]}, "size 3 where 4 is expected"),
        ({"input_ids": IDS, "attention_mask": MASK[:1]}, "size 1 where 2 is expected"),
        ({"input_ids": np.ones((1, 41), np.int64)}, "has 41 tokens, the model takes at most 40"),
        ({"input_ids": [["a", "b"]]}, "must be an array of int64"),
        ({"input_ids": [[1, 2], [3]]}, "must be an array of int64 with rows of one length"),
        ({"attention_mask": MASK}, "'input_ids' is missing"),
    ],
)
def test_wrong_inputs_are_refused_in_a_sentence(bundle, inputs, message):
    with pytest.raises(UsageError, match=message):
        bundle.run(inputs)


def test_results_do_not_depend_on_threads(host_bundle):
    outs = []
    for threads in (1, 2, 3):
        loaded = edgeq.load(host_bundle, threads=threads)
        outs.append(loaded(input_ids=IDS, attention_mask=MASK)["last_hidden_state"])
        assert loaded.threads == threads
    np.testing.assert_array_equal(outs[0], outs[1])
    np.testing.assert_array_equal(outs[0], outs[2])


def test_threads_are_all_cores_unless_the_environment_or_the_caller_says_otherwise(host_bundle, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    loaded = edgeq.load(host_bundle)
    cores = loaded.threads
    assert 1 <= cores <= len(os.sched_getaffinity(0))
    for said, threads in (("3", 3), ("5,2", 5), (" 2 ", 2), ("0", cores), ("many", cores), ("99999", cores)):
        monkeypatch.setenv("OMP_NUM_THREADS", said)
        assert choose_threads(None, loaded.model.library) == threads
        assert choose_threads(4, loaded.model.library) == 4
    allowed = os.sched_getaffinity(0)
    monkeypatch.delenv("OMP_NUM_THREADS")
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert choose_threads(None, loaded.model.library) == 1
    finally:
        os.sched_setaffinity(0, allowed)


def test_calls_from_many_threads_do_not_mix(bundle, host_bundle):
    failures = []

    def run(seed):
        rng = np.random.default_rng(seed)
        for _ in range(20):
            ids = rng.integers(0, 23, (rng.integers(1, 4), rng.integers(1, 30)))
            out = bundle(input_ids=ids)["last_hidden_state"]
            if not np.array_equal(out, _expected(host_bundle, ids, np.ones_like(ids))):
                failures.append(seed)

    workers = [threading.Thread(target=run, args=(seed,)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures


@pytest.mark.parametrize("threads", [0, -1, 5000, "2", 2.0, True])
def test_impossible_thread_counts_are_refused(host_bundle, threads):
    with pytest.raises(UsageError, match=r"threads must be an integer in 1\.\.1024"):
        edgeq.load(host_bundle, threads=threads)


def test_a_bundle_for_another_machine_is_refused(host_bundle, copy_of):
    import dataclasses

    foreign = copy_of(host_bundle)
    manifest = read_manifest(foreign)
    (target,) = manifest.targets
    other = dataclasses.replace(target, triple="pdp11-linux-gnu")
    write_manifest(foreign, dataclasses.replace(manifest, targets=(other,)))
    with pytest.raises(UnsupportedError, match=r"is for host \(pdp11\).*edgeq-run"):
        edgeq.load(foreign)
    newer = dataclasses.replace(target, cpu_flags=("flag_of_2050",))
    write_manifest(foreign, dataclasses.replace(manifest, targets=(newer,)))
    with pytest.raises(UnsupportedError, match="which has flag_of_2050; this machine"):
        edgeq.load(foreign)


def test_code_that_is_none_is_a_sentence(host_bundle, copy_of):
    damaged = copy_of(host_bundle)
    data = (damaged / "code/host.so").read_bytes()
    (damaged / "code/host.so").write_bytes(bytes(len(data)))
    with pytest.raises(FormatError, match=r"code/host\.so is damaged"):
        edgeq.load(damaged)
    with pytest.raises(FormatError, match=r"code/host\.so"):
        edgeq.load(damaged, verify=False)


def test_a_library_that_was_changed_is_never_loaded(host_bundle, copy_of):
    damaged = copy_of(host_bundle)
    data = bytearray((damaged / "lib/libedgeq.so").read_bytes())
    data[-1] ^= 1
    (damaged / "lib/libedgeq.so").write_bytes(data)
    for verify in (True, False):
        with pytest.raises(FormatError, match=r"libedgeq\.so is damaged"):
            edgeq.load(damaged, verify=verify)


def test_a_bundle_that_was_replaced_runs_its_new_code(host_bundle, doubled_bundle, copy_of):
    """Same path, same weights, other code: what was loaded before goes on with its own."""
    first = edgeq.load(copy_of(host_bundle))
    before = first(input_ids=IDS)["last_hidden_state"]
    shutil.rmtree(first.path)
    second = edgeq.load(copy_of(doubled_bundle))
    assert second.path == first.path
    np.testing.assert_array_equal(second(input_ids=IDS)["last_hidden_state"], 2 * before)
    np.testing.assert_array_equal(first(input_ids=IDS)["last_hidden_state"], before)
    assert first.manifest.files != second.manifest.files


def test_an_embedding_loads_only_what_it_needs(host_bundle):
    """Everything else takes milliseconds of a start that has few: OpenSSL, the manifest's parser, other tasks."""
    code = (
        "import sys, numpy\n"
        "before = set(sys.modules)\n"
        "import edgeq\n"
        f"edgeq.load({str(host_bundle)!r}).encode(['the cat'])\n"
        "print(*(set(sys.modules) - before))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(result.stdout.split())
    runtime = "edgeq.targets.runtime."
    assert f"{runtime}text_reading" in loaded
    late = {runtime + name for name in ("schema", "manifest", "tasks", "text", "generation", "native_tasks")}
    assert not loaded & {"hashlib", "_hashlib", "tempfile", "random", "concurrent.futures", "dataclasses", *late}


@pytest.mark.parametrize("threads", [1, 2])
def test_a_child_of_fork_gets_the_same_results(host_bundle, threads):
    """In a process of its own, which has the threads of no other library."""
    code = (
        "import os, numpy as np, edgeq\n"
        f"bundle = edgeq.load({str(host_bundle)!r}, threads={threads})\n"
        "ids = np.ones((3, 20), np.int64)\n"
        "before = bundle(input_ids=ids)['last_hidden_state']\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os._exit(0 if np.array_equal(bundle(input_ids=ids)['last_hidden_state'], before) else 3)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0\n"
        "assert np.array_equal(bundle(input_ids=ids)['last_hidden_state'], before)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


FORKED = """
import os, sys, threading, time, numpy as np, edgeq
from edgeq.errors import EdgeqError
from edgeq.targets.runtime import kernel_times, native
bundle = edgeq.load(sys.argv[1], threads=1)
ids = np.ones((3, 20), np.int64)

def call_in_child():
    child = os.fork()
    if child == 0:
        try:
            bundle(input_ids=ids)
            edgeq.load(sys.argv[1])
        except EdgeqError as error:
            os._exit(4 if "forked while another thread used" in str(error) else 5)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

# Another thread makes its first call, and imports what that needs.
held, done = threading.Event(), threading.Event()
class Slow:
    @staticmethod
    def find_spec(name, path, target=None):
        if name == "edgeq.targets.runtime.manifest_parser":
            held.set()
            time.sleep(0.5)  # holding the lock of the module, and those of all who wait for it
sys.meta_path.insert(0, Slow)
thread = threading.Thread(target=lambda: bundle(input_ids=ids))
thread.start()
held.wait()
print(call_in_child())
thread.join()
# Another thread holds the locks, as in the middle of a call and of a load.
held.clear()
def hold():
    with bundle.session._lock, native._LOCK:
        held.set()
        done.wait()
thread = threading.Thread(target=hold)
thread.start()
held.wait()
print(call_in_child())
done.set()
thread.join()
# Forked between two kernels: the child has half a call.
codes = []
watch = kernel_times.Watch(lambda *_: codes.append(call_in_child()) if not codes else None)
library = kernel_times.with_kernel_times(bundle.model.library)
library.edgeq_watch_kernels(bundle.session._handle, watch, None)
bundle(input_ids=ids)
print(codes[0])
"""


def test_a_fork_while_another_thread_calls_never_hangs(host_bundle):
    # From Python 3.12 on, a fork beside threads is warned of.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKED, str(host_bundle)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["0", "0", "4"]
    assert done.stderr == ""


def test_what_calls_import_is_imported_before_a_fork():
    found = set()
    for path in Path(native.__file__).parent.glob("*.py"):
        functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
        imports = [node for function in functions for node in ast.walk(function) if isinstance(node, ast.ImportFrom)]
        for node in imports:
            package = node.module == "edgeq.targets.runtime"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} if package else {node.module}
    ours = {name for name in found if name.startswith("edgeq")}
    assert ours - {"edgeq.targets.runtime.signature"} == set(OF_CALLS)  # that one loads a bundle, and no call


def test_an_id_that_changes_while_it_is_checked_never_reaches_a_kernel(bundle):
    """Either the array that was checked is run, or the call is refused."""
    ids, stop = np.ones((64, 40), np.int64), threading.Event()
    allowed = bundle(input_ids=np.ones((1, 40), np.int64))["last_hidden_state"][0, 0]

    def change():
        while not stop.is_set():
            ids[:] = 1 << 40
            ids[:] = 1

    worker = threading.Thread(target=change)
    worker.start()
    try:
        for _ in range(100):
            with contextlib.suppress(UsageError):
                assert (bundle(input_ids=ids)["last_hidden_state"] == allowed).all()
    finally:
        stop.set()
        worker.join()


def test_kernels_are_timed_by_name(bundle):
    times = bundle.time_kernels({"input_ids": IDS})
    names = [kernel.name for kernel in times]
    assert any("matmul" in name for name in names)
    assert all(kernel.calls >= 1 and kernel.seconds >= 0 for kernel in times)
    assert times == sorted(times, key=lambda kernel: -kernel.seconds)


def _in_a_fresh_process(code):
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_loading_imports_no_training_library_and_no_compiler(host_bundle):
    """In a fresh process, so that nothing else has imported them."""
    code = (
        "import json, sys, numpy, edgeq\n"
        f"bundle = edgeq.load({str(host_bundle)!r}, threads=2)\n"
        "ok = bundle.self_test().ok\n"
        "heavy = ('torch', 'transformers', 'onnx', 'onnxruntime', 'pydantic', 'typer', 'tvm')\n"
        "print(json.dumps([ok, [name for name in heavy if name in sys.modules]]))\n"
    )
    assert _in_a_fresh_process(code) == [True, []]
