import pytest

from edgeq.doctor import diagnose, stock_flavour
from edgeq.errors import UsageError
from edgeq.targets.toolchain import linkers as toolchain


def _by_name(findings):
    return {finding.name: finding for finding in findings}


@pytest.mark.needs("arm64-emulator", "arm64-compiler")
def test_a_complete_machine_has_no_complaint():
    findings = diagnose(["host", "cortex-a72"])
    assert all(finding.ok for finding in findings), findings
    names = set(_by_name(findings))
    assert {
        "processor",
        "package apache-tvm",
        "host: C compiler",
        "cortex-a72: running bundles here",
    } <= names
    assert not any("x86-64" in name for name in names)


def test_without_arguments_every_target_is_looked_at():
    assert {f"{name}: C compiler" for name in ("cortex-a53", "x86-64-vnni", "host")} <= set(
        _by_name(diagnose())
    )


def test_missing_tools_come_with_the_command_that_brings_them(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    real = toolchain.importlib.util.find_spec
    monkeypatch.setattr(
        toolchain.importlib.util,
        "find_spec",
        lambda name: None if name in ("ziglang", "onnx") else real(name),
    )
    findings = _by_name(diagnose(["cortex-a72"]))
    compiler, runner = findings["cortex-a72: C compiler"], findings["cortex-a72: running bundles here"]
    assert not compiler.ok
    assert compiler.fix_command.startswith("apt-get install gcc")
    assert "`" not in compiler.fix_command
    assert not runner.ok
    assert "qemu-aarch64-static" in runner.detail
    assert runner.fix_command == "apt-get install qemu-user-static libc6-arm64-cross"
    # Estimates and devices are extras: without their programs the rest still works.
    assert findings["edgeq estimate"].ok
    assert findings["edgeq profile --on"].detail.startswith("not possible here: there is no ssh")
    assert "not possible here" in findings["edgeq estimate"].detail
    assert findings["package onnx"].fix_command == "pip install 'edgeq[all]'"


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("1.31.1", "2-, 4- and 8-bit weights fast"),
        ("1.28.0", "2-, 4- and 8-bit weights fast"),
        ("1.27.0", "2-bit weights very slowly"),
        ("1.24.4", "2-bit weights very slowly"),
        ("1.23.2", "refuses 2-bit weights"),
        ("1.20.1", "refuses packed tables and weights of 2 and 8 bits"),
    ],
)
def test_releases_that_run_the_stock_flavour_slowly_or_not_are_named_and_keep_nothing_else_from_running(version, said):
    finding = stock_flavour(version)
    assert finding.ok  # `edgeq deploy` stops at what is not
    assert version in finding.detail
    assert said in finding.detail
    assert ("onnxruntime>=1.28" in finding.detail) is (version < "1.28")


def test_an_unknown_target_is_a_wrong_request():
    with pytest.raises(UsageError, match="unknown target"):
        diagnose(["cortex-a"])
