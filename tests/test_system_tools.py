"""What installs the system programs, and what is said about tests that were skipped without them."""

import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests import system_tools

ROOT = Path(__file__).parents[1]


@pytest.fixture
def install(tmp_path):
    """Runs the script where only a few of this system's programs are on PATH, and the ones that a test makes."""
    for name in ("bash", "dirname", "awk", "grep", "sort", "xargs", "mktemp", "rm", "tail", "env"):
        found = next(Path(folder) / name for folder in ("/usr/bin", "/bin") if (Path(folder) / name).exists())
        (tmp_path / name).symlink_to(found)

    def run(*arguments, programs=(), **variables):
        for name, script in dict(programs).items():
            (tmp_path / name).write_text(f"#!{tmp_path}/bash\n{script}\n")
            (tmp_path / name).chmod(0o755)
        command = [tmp_path / "bash", "-c", f'"{ROOT}/tools/install.sh" "$@"', "install", *arguments]
        environment = {"PATH": str(tmp_path), **variables}
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)

    return run


AS_ROOT = {"id": "echo 0", "apt-get": 'echo "$@" >>"${0%/*}/apt.log"'}
AS_USER = AS_ROOT | {"id": "echo 1000"}
WITH_SUDO = AS_USER | {"sudo": 'echo "sudo $*" >>"${0%/*}/apt.log"; [[ $1 == -n ]] && shift; "$@"'}


def test_the_table_is_whole():
    assert {"arm64-emulator", "armhf-compiler", "browser", "ssh", "llvm-mca", "clang"} <= set(system_tools.tools())
    with pytest.raises(ValueError, match="no tool 'arm64'"):
        system_tools.reason_to_skip("arm64")


def test_packages_that_are_missing_are_installed_once(install, tmp_path):
    done = install("minisign", "llvm-mca", programs=AS_ROOT)
    assert (done.returncode, done.stdout) == (0, "installing llvm minisign\n")
    asked = (tmp_path / "apt.log").read_text().splitlines()
    assert asked == ["update -qq", "install -y -qq --no-install-recommends llvm minisign"]


def test_sudo_is_used_where_it_asks_no_password(install, tmp_path):
    assert install("--if-allowed", "minisign", programs=WITH_SUDO).returncode == 0
    asked = (tmp_path / "apt.log").read_text().splitlines()
    assert asked[0] == "sudo -n true"
    assert asked[-1] == "install -y -qq --no-install-recommends minisign"
    refused = WITH_SUDO | {"sudo": "exit 1"}
    assert "installing them needs root" in install("--if-allowed", "minisign", programs=refused).stderr


def test_nothing_is_done_where_all_is_there(install):
    done = install("minisign", programs={"minisign": ""})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("programs", "variables", "said"),
    [
        ({}, {}, "there is no apt-get here"),
        (AS_ROOT, {"SYSTEM_TOOLS": "no"}, "SYSTEM_TOOLS=no forbids installing them"),
        (AS_ROOT | {"apt-get": "echo no network >&2; exit 100"}, {}, "no network\nsystem packages are missing"),
    ],
)
def test_where_it_may_not_it_says_so(install, programs, variables, said):
    for options, code in ((["--if-allowed"], 0), ([], 1)):
        done = install(*options, "minisign", programs=programs, **variables)
        assert done.returncode == code
        assert said in done.stderr
        assert "system packages are missing: minisign; " in done.stderr


def test_a_user_without_sudo_is_told_the_command(install, tmp_path):
    done = install("--if-allowed", "minisign", programs=AS_USER)
    assert done.returncode == 0
    assert "run 'make tools' as root, or: apt-get install --no-install-recommends minisign" in done.stderr
    assert install("minisign", programs=AS_USER).returncode == 1
    assert not (tmp_path / "apt.log").exists()


def test_an_unknown_tool_is_refused(install):
    done = install("emulator")
    assert done.returncode == 2
    assert "no tool 'emulator'" in done.stderr


def test_the_last_lines_say_how_many_why_and_which_command():
    browser = "needs browser, which `make tools` installs (chromium)"
    reasons = Counter({browser: 3, "this processor lacks avx512_vnni": 1})
    assert system_tools.skipped_lines(reasons) == [
        "4 tests were skipped:",
        f"     3 {browser}",
        "     1 this processor lacks avx512_vnni",
        "To run them too: make tools, then make test again.",
    ]
    assert system_tools.skipped_lines(Counter()) == []


def test_a_file_that_is_skipped_as_a_whole_is_counted(monkeypatch):
    reasons = Counter()
    monkeypatch.setattr(system_tools, "_reasons", reasons)
    why = ("tests/x.py", 3, "Skipped: needs a model, which `make tools` installs")
    system_tools.pytest_collectreport(pytest.CollectReport("tests/x.py", "skipped", why, []))
    system_tools.pytest_collectreport(pytest.CollectReport("tests/y.py", "passed", None, []))
    assert reasons == {"needs a model, which `make tools` installs": 1}
