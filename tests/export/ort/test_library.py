"""The operator library in ONNX Runtime: what it computes, what it refuses, and what it keeps in memory."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from edgeq.errors import EdgeqError, UnsupportedError, UsageError
from edgeq.export.ort import LIBRARY_NAME, build_library, cached_library, session_options
from edgeq.export.ort.check_abi import declared_members, declared_slots
from edgeq.formats.low_bit import OP_DOMAIN, ZERO_POINTS
from edgeq.targets.builtin.target import processor_levels
from edgeq.targets.runtime.machine import this_machine

GRIDS = [(bits, zero_point) for bits, zero_points in ZERO_POINTS.items() for zero_point in zero_points]
OLD = "1.20.1"
RUN_ELSEWHERE = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
import onnxruntime
assert onnxruntime.__version__ == sys.argv[5], onnxruntime.__version__
options = onnxruntime.SessionOptions()
options.register_custom_ops_library(sys.argv[2])
session = onnxruntime.InferenceSession(sys.argv[3], options)
given = np.load(sys.argv[4] + "/in.npz")
y, z = session.run(None, {"x": given["x"], "ids": given["ids"]})
np.savez(sys.argv[4] + "/out.npz", y=y, z=z, shape=np.array([str(o.shape) for o in session.get_outputs()]))
"""


def agree(got, want):
    """Floats may differ where a product and a sum are rounded together; rows of the table may not."""
    np.testing.assert_allclose(got[0], want[0], rtol=0, atol=2e-6 * max(np.abs(want[0]).max(initial=0), 1))
    np.testing.assert_array_equal(got[1], want[1])


@pytest.mark.parametrize("activation", ["dynamic", "static", "none"])
@pytest.mark.parametrize("threads", [1, 2])
def test_operators_compute_what_numpy_says(activation, threads, operator_model, small_library, open_session):
    whole = threads == 2
    model = operator_model(activation=activation, row_scales=whole, has_bias=whole, rows=1003 if whole else 37)
    session = open_session(model.proto, small_library, threads=threads)
    for batch, sequence in ((1, 1), (2, 5), (3, 17), (0, 4)):
        inputs = model.inputs(batch, sequence)
        agree(session.run(None, inputs), model.expected(inputs))


def test_a_row_is_the_same_bits_alone_and_among_others(operator_model, small_library, open_session):
    model = operator_model(rows=700, columns=390)
    one, two = (open_session(model.proto, small_library, threads=threads) for threads in (1, 2))
    inputs = model.inputs(1, 29)
    together = one.run(["y"], inputs)[0]
    np.testing.assert_array_equal(two.run(["y"], inputs)[0], together)
    for row in range(29):
        alone = {name: array[:, row : row + 1] for name, array in inputs.items()}
        np.testing.assert_array_equal(one.run(["y"], alone)[0], together[:, row : row + 1])


def test_inputs_and_outputs_need_no_alignment(operator_model, small_library, open_session):
    model = operator_model(rows=33, columns=45)
    session = open_session(model.proto, small_library)
    inputs = model.inputs(1, 6)
    room = np.zeros(6 * 45 + 64, np.float32)
    for shift in (1, 7):
        x = room[shift : shift + 6 * 45].reshape(1, 6, 45)
        x[:] = inputs["x"]
        binding, y = session.io_binding(), np.zeros(6 * 33 + 64, np.float32)[shift:]
        binding.bind_input("x", "cpu", 0, np.float32, x.shape, x.ctypes.data)
        binding.bind_cpu_input("ids", inputs["ids"])
        binding.bind_output("y", "cpu", 0, np.float32, (1, 6, 33), y.ctypes.data)
        binding.bind_output("z")
        session.run_with_iobinding(binding)
        agree([y[: 6 * 33].reshape(1, 6, 33), binding.copy_outputs_to_cpu()[1]], model.expected(inputs))


def test_sizes_that_may_vary_keep_their_names(operator_model, small_library, open_session):
    model = operator_model()
    shapes = [output.shape for output in open_session(model.proto, small_library).get_outputs()]
    assert shapes == [["batch", "sequence", 37], ["batch", "sequence", 53]]
    for value in (*model.proto.graph.input,):
        value.type.tensor_type.shape.dim[1].Clear()
    session = open_session(model.proto, small_library)
    inputs = model.inputs(2, 3)
    agree(session.run(None, inputs), model.expected(inputs))


def test_the_library_goes_before_the_bodies_and_both_mean_the_same(operator_model, small_library, open_session):
    model = operator_model(activation="dynamic")
    inputs = model.inputs(2, 9)
    agree(open_session(model.proto, small_library).run(None, inputs), open_session(model.proto, None).run(None, inputs))
    plain = operator_model(activation="dynamic", bodies=False)
    with pytest.raises(Exception, match=OP_DOMAIN):
        open_session(plain.proto, None)
    agree(open_session(plain.proto, small_library).run(None, inputs), model.expected(inputs))


def damaged(model, how):
    """Breaks one thing in a model without bodies, so that ONNX's own checks have nothing to say."""
    linear = model.proto.graph.node[0]
    attributes = {attribute.name: attribute for attribute in linear.attribute}
    if how.startswith("no "):
        linear.attribute.remove(attributes[how[3:]])
    elif how == "bits":
        attributes["bits"].i = 3
    elif how == "unbuilt":
        attributes["bits"].i = 8
    elif how == "zero_point":
        attributes["zero_point"].f = 1.25
    elif how == "activation":
        attributes["activation"].s = b"sometimes"
    elif how == "packed":
        attributes["N"].i = 64
    elif how == "scale":
        linear.input[2] = "b2"
        model.proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(5, np.float32), "b2"))
    elif how == "huge":
        attributes["K"].i = 40_000_000
    elif how == "initializer":
        linear.input[3] = "given_bias"
        value = helper.make_tensor_value_info("given_bias", TensorProto.FLOAT, [37])
        model.proto.graph.input.append(value)
    return model.proto


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("no N", "attribute N .* is missing"),
        ("no zero_point", "attribute zero_point .* is missing"),
        ("no activation", "attribute activation must be"),
        ("bits", "bits must be 1, 2, 4 or 8, found 3"),
        ("unbuilt", "built without kernels for 8-bit codes"),
        ("zero_point", "zero_point must be a multiple of 0.5 from 0 to 3, found 1.25"),
        ("activation", "found 'sometimes'"),
        ("packed", "W_packed of a 64 x 53 matrix .* 4 x 4 x 16 x 4"),
        ("scale", "scale must have 1 or N=37 entries, found 5"),
        ("huge", "can overflow a 32-bit sum"),
        ("initializer", "input bias must be an initializer"),
    ],
)
def test_a_bad_node_is_refused_when_the_session_opens(how, sentence, operator_model, small_library, open_session):
    proto = damaged(operator_model(bodies=False), how)
    with pytest.raises(Exception, match=f"LowBitLinear linear: .*{sentence}"):
        open_session(proto, small_library)


def test_bad_inputs_are_refused_when_the_model_runs(operator_model, small_library, open_session):
    model = operator_model(bodies=False)
    session = open_session(model.proto, small_library)
    inputs = model.inputs(1, 3)
    with pytest.raises(Exception, match="LowBitLinear linear: X must have K=53 columns, found 52"):
        session.run(["y"], {"x": inputs["x"][..., :52], "ids": inputs["ids"]})
    for wrong in (-1, 37):
        with pytest.raises(Exception, match=f"LowBitEmbedding.*: id {wrong} is not in 0 to 36"):
            session.run(["z"], {**inputs, "ids": np.array([[0, wrong, 1]])})
    static = operator_model(bodies=False, activation="static")
    next(tensor for tensor in static.proto.graph.initializer if tensor.name == "a").raw_data = bytes(4)
    with pytest.raises(Exception, match="activation_scale must be one positive number"):
        open_session(static.proto, small_library).run(["y"], inputs)


def memory_of_process(field):
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.search(rf"{field}:\s+(\d+) kB", text).group(1)) * 1024


def test_weights_stay_in_the_mapped_file(operator_model, small_library, open_session, tmp_path):
    rows, columns = 65536, 2048
    model = operator_model(rows=16, columns=16, bodies=False).proto
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name in ("N", "K"):
                attribute.i = rows if attribute.name == "N" else columns
    del model.graph.initializer[:]
    weight = TensorProto(name="W", data_type=TensorProto.UINT8, dims=[rows // 16, columns // 16, 16, 4])
    weight.data_location = TensorProto.EXTERNAL
    size = rows * columns // 4
    for key, value in (("location", "weights.bin"), ("offset", "0"), ("length", str(size))):
        weight.external_data.add(key=key, value=value)
    with (tmp_path / "weights.bin").open("wb") as stream:
        stream.truncate(size)
    constants = [np.ones(1, np.float32), np.zeros(1, np.float32)]
    model.graph.initializer.append(weight)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(c, n) for c, n in zip(constants, "sb", strict=True))
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    before = memory_of_process("RssAnon")
    session = open_session(tmp_path / "model.onnx", small_library)
    x = np.ones((1, 1, columns), np.float32)
    y = session.run(["y"], {"x": x, "ids": np.zeros((1, 1), np.int64)})[0]
    np.testing.assert_allclose(y, -columns)  # every code is 0, one below the zero point
    assert str(tmp_path / "weights.bin") in Path("/proc/self/maps").read_text(encoding="utf-8")
    assert memory_of_process("RssAnon") - before < size // 4


def run_with(version, model, library, folder):
    home = Path(sys.prefix) / f"onnxruntime-{version}"
    inputs = model.inputs(2, 7)
    np.savez(folder / "in.npz", **inputs)
    onnx.save(model.proto, folder / "model.onnx")
    arguments = [home, library, folder / "model.onnx", folder, version]
    subprocess.run([sys.executable, "-c", RUN_ELSEWHERE, *map(str, arguments)], check=True, timeout=120)
    with np.load(folder / "out.npz") as out:
        assert list(out["shape"]) == ["['batch', 'sequence', 37]", "['batch', 'sequence', 53]"]
        return inputs, [out["y"], out["z"]]


def same_bits_with(version, model, library, folder, open_session):
    inputs, got = run_with(version, model, library, folder)
    for old, new in zip(got, open_session(model.proto, library).run(None, inputs), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.needs("onnxruntime-1.20")
def test_the_same_file_serves_an_older_onnx_runtime(operator_model, small_library, open_session, tmp_path):
    same_bits_with(OLD, operator_model(), small_library, tmp_path, open_session)


@pytest.mark.slow
@pytest.mark.needs("onnxruntime-1.17", "onnxruntime-1.20", "onnxruntime-1.23")
@pytest.mark.parametrize("version", ["1.17.3", "1.20.1", "1.23.2"])
def test_the_whole_library_serves_every_onnx_runtime(version, operator_model, whole_library, open_session, tmp_path):
    for number, (bits, zero_point) in enumerate(GRIDS):
        model = operator_model(bits=bits, zero_point=zero_point, activation=["dynamic", "static", "none"][number % 3])
        same_bits_with(version, model, whole_library, tmp_path, open_session)


@pytest.mark.slow
@pytest.mark.parametrize("level", [level.isa for level in processor_levels(this_machine().architecture)])
def test_every_family_of_kernels_gives_the_bits_of_the_compiled_modules(
    level, operator_model, whole_library, open_session, with_kernels, compiled_linear
):
    chosen = next(known for known in processor_levels(this_machine().architecture) if known.isa == level)
    if not chosen.runs_on(this_machine()):
        pytest.skip(f"this processor lacks {', '.join(this_machine().lacks(chosen.cpu_flags))}")
    with_kernels(level)
    for bits, zero_point in GRIDS:
        for activation in ("dynamic", "static", "none"):
            model = operator_model(bits=bits, zero_point=zero_point, activation=activation)
            session = open_session(model.proto, whole_library, threads=2)
            for shape in ((1, 1), (3, 5)):
                inputs = model.inputs(*shape)
                got = session.run(None, inputs)
                agree(got, model.expected(inputs))
                np.testing.assert_array_equal(got[0].reshape(-1, model.rows), compiled_linear(model, inputs["x"]))


@pytest.mark.slow
def test_models_of_several_threads_at_once_do_not_disturb_each_other(operator_model, whole_library, open_session):
    from concurrent.futures import ThreadPoolExecutor

    model = operator_model(bits=4, zero_point=8.0, rows=400, columns=300)
    session = open_session(model.proto, whole_library, threads=2)
    inputs = [model.inputs(1, 1 + number % 9, seed=number) for number in range(200)]
    alone = [session.run(["y"], given)[0] for given in inputs]
    with ThreadPoolExecutor(4) as pool:
        for got, want in zip(pool.map(lambda given: session.run(["y"], given)[0], inputs), alone, strict=True):
            np.testing.assert_array_equal(got, want)


def test_unknown_kernels_are_refused_by_the_variable_that_named_them(
    operator_model, small_library, open_session, with_kernels
):
    with_kernels("avx1024")
    with pytest.raises(Exception, match="EDGEQ_ORT_KERNELS"):
        open_session(operator_model().proto, small_library)


def test_the_declared_interface_is_complete():
    slots = declared_slots()
    text = (Path(build_library.__globals__["SHIM"]) / "ort_abi.h").read_text(encoding="utf-8")
    table = text[text.index("typedef struct {\n  OrtStatus *(*CreateStatus)") : text.index("#define ORT_SLOT")]
    assert set(slots) == set(re.findall(r"\(\*(\w+)\)\(", table)) - {"run"}
    assert declared_members()[-1] == "ReleaseAliasMap"


def test_a_library_that_is_none_is_refused(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        session_options(tmp_path / "nothing.so")
    (tmp_path / "broken.so").write_bytes(b"no library")
    with pytest.raises(EdgeqError, match=re.escape(onnxruntime.__version__)):
        session_options(tmp_path / "broken.so")


def test_an_architecture_without_kernels_is_refused(monkeypatch, tmp_path):
    from edgeq.export.ort import library

    monkeypatch.setattr(library, "processor_levels", lambda architecture: [])
    with pytest.raises(UnsupportedError, match="no kernels of operators"):
        build_library(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_verb_says_where_the_library_is_and_what_is_in_it(monkeypatch, tmp_path, capsys):
    from edgeq.cli.main import main

    asked = []

    def pretend(out, *, target, force, progress):
        assert not force
        asked.append((out, target.name))
        return out / LIBRARY_NAME

    monkeypatch.setattr("edgeq.export.ort.build_library", pretend)
    assert main(["ort-library", str(tmp_path), "--target", "cortex-a72", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert asked == [(tmp_path, "cortex-a72")]
    assert said["library"] == str(tmp_path / LIBRARY_NAME)
    assert {"neon", "neon_dotprod"} <= set(said["kernels"])
    assert main(["ort-library", str(tmp_path), "--target", "cortex-a99"]) == 2
    assert "cortex-a99" in capsys.readouterr().err


def test_the_cached_library_is_built_once_and_anew_when_a_source_changes(monkeypatch, tmp_path):
    from edgeq.export.ort import session

    built = []

    def pretend(folder, **_):
        built.append(folder)
        folder.mkdir(parents=True)
        (folder / LIBRARY_NAME).write_bytes(b"")
        return folder / LIBRARY_NAME

    monkeypatch.setenv("EDGEQ_CACHE", str(tmp_path))
    monkeypatch.setattr(session, "build_library", pretend)
    assert cached_library() == cached_library()
    assert len(built) == 1
    (tmp_path / "new.c").write_text("int x;", encoding="utf-8")
    monkeypatch.setattr(session, "_SOURCES", [*session._SOURCES, tmp_path / "new.c"])
    assert cached_library() != built[0] / LIBRARY_NAME
    assert len(built) == 2
