"""``edgeq profile --on``: copy what changed, prove, measure; and what happens when the connection does not last."""

import dataclasses
import hashlib
import json

import pytest

from edgeq.cli.main import main
from edgeq.errors import EdgeqError, UnsupportedError, UsageError
from edgeq.targets.devices.remote.address import Address
from edgeq.targets.devices.remote.connection import Connection
from edgeq.targets.devices.remote.profile import profile_on_device
from edgeq.targets.runtime.digests import file_record
from edgeq.targets.runtime.machine import this_machine
from edgeq.targets.runtime.manifest import read_manifest

NATIVE = {"x86_64": "x86-64-v3", "aarch64": "cortex-a72"}[this_machine().architecture]


@pytest.fixture
def bundle(make_bundle, copy_of):
    """The tiny model as it would go to a device of this machine's architecture."""
    return copy_of(make_bundle(NATIVE))


def _profile(bundle, board, **options):
    settings = {"sequence": 8, "threads": 1, "runs": 5, "ssh_config": board.ssh_config}
    return profile_on_device(bundle, board.address, **(settings | options))


def _replace(bundle, name, data):
    """Changes a file as compiling again would: the manifest knows."""
    (bundle / name).write_bytes(data)
    table = json.loads((bundle / "manifest.json").read_text())
    table["files"][name] = dataclasses.asdict(file_record(bundle / name))
    text = json.dumps(table).encode()
    (bundle / "manifest.json").write_bytes(text)
    (bundle / "manifest.sha256").write_text(f"{hashlib.sha256(text).hexdigest()}  manifest.json\n")


def test_a_bundle_is_copied_proven_and_measured_and_only_changes_are_copied_again(bundle, board):
    told = []
    first = _profile(bundle, board, progress=lambda *step: told.append(step))
    files = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()}
    assert set(first.sent_files) == files
    assert first.kept_bytes == 0
    assert told[-1] == ("measuring on the device", 1, 1)
    assert any("copying" in what and done == total > 0 for what, done, total in told)
    assert "agree with the golden ones in every bit" in first.golden
    timing = first.profile.timings["edgeq"]
    assert timing.calls == 5
    assert 0 < timing.fastest <= timing.median
    assert {"matmul", "take"} <= {operator.name for operator in first.profile.operators}
    assert first.peak_bytes > 1e5
    assert first.profile.machine["processor"] == this_machine().model

    again = _profile(bundle, board)
    assert (again.sent_files, again.sent_bytes, again.kept_bytes) == ((), 0, first.sent_bytes)

    _replace(bundle, "tokenizer.json", b"{}\n")
    rotten = board.folder() / "weights.bin"
    rotten.write_bytes(bytes(len(rotten.read_bytes())))
    third = _profile(bundle, board)
    assert set(third.sent_files) == {"tokenizer.json", "weights.bin", "manifest.json", "manifest.sha256"}
    assert not [path for path in board.folder().rglob("*") if "partial" in path.name or "inputs" in path.name]


def test_a_connection_that_drops_half_way_leaves_whole_files_only_and_goes_on_later(bundle, board, cut_after):
    sizes = {name: record.bytes for name, record in read_manifest(bundle).files.items()}
    before = sum(size for name, size in sizes.items() if name < "lib/")
    address = dataclasses.replace(board.address, port=cut_after(before + sizes["lib/libedgeq.so"] // 2))
    with pytest.raises(EdgeqError, match=r"no connection to ssh://board:\d+ while copying lib/.*run the command again"):
        profile_on_device(bundle, address, sequence=8, ssh_config=board.ssh_config)
    arrived = {p.relative_to(board.folder()).as_posix(): p for p in board.folder().rglob("*") if p.is_file()}
    whole = {name for name in arrived if not name.endswith(".partial")}
    assert "edgeq-run" in whole
    assert "manifest.json" not in whole
    for name in whole:
        assert arrived[name].read_bytes() == (bundle / name).read_bytes()
    rest = _profile(bundle, board)
    assert whole.isdisjoint(rest.sent_files)
    assert not list(board.folder().rglob("*.partial"))


def test_a_connection_that_drops_while_a_command_runs_is_a_sentence(board, cut_after):
    address = dataclasses.replace(board.address, port=cut_after(100_000))
    with Connection(address, config=board.ssh_config) as connection:
        connection.run("true", doing="waiting")
        with pytest.raises(EdgeqError, match=r"no connection to .* while measuring \(.+\)") as caught:
            connection.run("cat; sleep 60", doing="measuring", data=[bytes(200_000)])
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_wrong_golden_output_ends_it_before_anything_is_timed(bundle, board):
    data = bytearray((bundle / "golden.bin").read_bytes())
    data[read_manifest(bundle).golden[0].outputs[0].offset] ^= 1
    _replace(bundle, "golden.bin", bytes(data))
    with pytest.raises(EdgeqError, match=r"does not work on ssh://board.*self-test failed: 1 of 216"):
        _profile(bundle, board)


@pytest.mark.slow
def test_a_bundle_for_another_processor_is_not_even_copied(make_bundle, board):
    other = {"x86_64": "cortex-a72", "aarch64": "x86-64-v3"}[this_machine().architecture]
    with pytest.raises(UnsupportedError, match=f"the bundle is for {other} .*but ssh://board"):
        _profile(make_bundle(other), board)
    assert not board.store.exists()


def test_devices_that_refuse_and_commands_that_fail_are_sentences(board, tmp_path):
    with pytest.raises(UsageError, match="no ssh configuration"):
        Connection(board.address, config=tmp_path / "none")
    with Connection(board.address, config=board.ssh_config) as connection:
        with pytest.raises(EdgeqError, match=r"board:\d+ failed while trying it: it was ended by SIGILL"):
            connection.run("sh -c 'kill -ILL $$'", doing="trying it")
        with pytest.raises(EdgeqError, match=r"board:\d+ failed while trying it: no such luck"):
            connection.run("echo no such luck >&2; exit 3", doing="trying it")
    stranger = tmp_path / "config"
    stranger.write_text(board.ssh_config.read_text().replace("client_key", "host_key"))
    with pytest.raises(EdgeqError, match=r"no connection to ssh://board:\d+ while trying it \(.*Permission denied"):
        Connection(board.address, config=stranger).run("true", doing="trying it")
    closed = Address("board", port=1)
    with pytest.raises(EdgeqError, match="refused"):
        Connection(closed, config=board.ssh_config).run("true", doing="trying it")


def test_a_folder_that_cannot_be_written_is_a_sentence(bundle, board):
    address = dataclasses.replace(board.address, folder="/proc/no where")
    with pytest.raises(EdgeqError, match="cannot keep bundles in '/proc/no where'"):
        profile_on_device(bundle, address, sequence=8, ssh_config=board.ssh_config)


@pytest.mark.slow
def test_the_command_line_measures_on_a_device(bundle, server, capsys):
    words = ["profile", str(bundle), "--on", f"ssh://board:{server.port}"]
    words += ["--ssh-config", str(server.ssh_config), "--sequence", "8", "--rounds", "3", "--threads", "1"]
    assert main(words) == 0
    text = capsys.readouterr().out
    files = sum(path.is_file() for path in bundle.rglob("*"))
    assert f"copied {files} files, " in text
    assert "peak memory" in text
    assert "matmul" in text
    assert main([*words, "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured["device"]["sent_files"] == []
    assert measured["speedups"] == {}
    assert measured["timings"]["edgeq"]["calls"] == 3
    assert server.folder().name.startswith(bundle.name)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--on", "pi@board"], "--on takes an address such as ssh://"),
        (["--on", "ssh://pi@board", "--float-onnx", "x"], "leave it or --on out"),
        (["--ssh-config", "x"], "belongs to --on"),
    ],
)
def test_options_that_do_not_fit_are_refused(bundle, capsys, words, message):
    assert main(["profile", str(bundle), *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_a_decoders_step_is_measured(gpt2_board, board):
    measured = profile_on_device(
        gpt2_board(NATIVE), board.address, sequence=40, threads=1, runs=3, ssh_config=board.ssh_config
    )
    assert measured.profile.step
    assert any("append_and_attend" in operator.name for operator in measured.profile.operators)


@pytest.mark.slow
@pytest.mark.parametrize("reading", [False, True])
def test_an_encoder_decoder_is_measured(bart_board, board, reading):
    options = {"sequence": 12, "threads": 1, "runs": 3, "ssh_config": board.ssh_config}
    measured = profile_on_device(bart_board(NATIVE), board.address, reading=reading, **options)
    assert (measured.profile.step, measured.profile.reading) == (not reading, reading)
    assert len(measured.profile.operators) > 5
