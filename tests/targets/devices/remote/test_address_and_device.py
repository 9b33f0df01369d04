"""Addresses of devices, and what a device says of itself."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.errors import UnsupportedError, UsageError
from edgeq.targets.devices.remote.address import Address, parse_address
from edgeq.targets.devices.remote.device import check_device, device_from_answer
from edgeq.targets.runtime.schema import TargetInfo


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("ssh://board", Address("board")),
        ("ssh://pi@Board.local", Address("Board.local", "pi")),
        ("ssh://pi@10.0.0.7:2222", Address("10.0.0.7", "pi", 2222)),
        ("ssh://pi@board/data/models/", Address("board", "pi", None, "/data/models")),
        ("ssh://[::1]:22", Address("::1", None, 22)),
        ("ssh://[fe80::1%eth0]", Address("fe80::1%eth0")),
    ],
)
def test_addresses_are_read(text, address):
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "", "board", "pi@board", "http://board", "ssh://", "ssh://pi@", "ssh://board:x", "ssh://board:99999",
        "ssh://pi:secret@board", "ssh://-oProxyCommand=x", "ssh://-l@board", "ssh://a b", "ssh://board?x=1",
        "ssh://$(id)@board", "ssh://board;id",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(text):
    with pytest.raises(UsageError) as caught:
        parse_address(text)
    assert "secret" not in str(caught.value)


@settings(deadline=None)
@given(st.text(max_size=30))
def test_no_text_becomes_an_option_of_ssh(text):
    try:
        address = parse_address(f"ssh://{text}")
    except UsageError:
        return
    assert not address.host.startswith("-")
    assert address.ssh_arguments[-2:] == ["--", address.host]
    assert not (address.user or "").startswith("-")


RASPBERRY_PI_5 = (
    "==edgeq== /proc/cpuinfo\n"
    + "".join(
        f"processor\t: {i}\nFeatures\t: fp asimd asimddp\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\n\n"
        for i in range(4)
    )
    + "==edgeq== /proc/device-tree/model\nRaspberry Pi 5 Model B Rev 1.0\0\n"
    "==edgeq== /proc/loadavg\n0.10 0.20 0.30 1/123 4567\n\n"
    "==edgeq== /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor\nondemand\n\n"
    "==edgeq== /sys/devices/system/cpu/cpu1/cpufreq/scaling_governor\nondemand\n\n"
    "==edgeq== /sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq\n1500000\n\n"
    "==edgeq== /sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq\n2400000\n\n"
    "==edgeq== /sys/class/thermal/thermal_zone0/temp\n48300\n\n"
    "==edgeq== /sys/class/thermal/thermal_zone1/temp\n\n\n"
    "==edgeq== uname\nLinux 6.6.31 aarch64\n"
)
TARGET = TargetInfo("cortex-a76", "aarch64-linux-gnu", "cortex-a76", (), "neon_dotprod", ("asimd", "asimddp"))


def test_a_board_says_what_it_is():
    device = device_from_answer(RASPBERRY_PI_5)
    assert device.machine.architecture == "aarch64"
    assert device.machine.model == "4x Cortex-A76"
    assert device.board == "Raspberry Pi 5 Model B Rev 1.0"
    assert (device.cores, device.governors, device.megahertz, device.celsius) == (4, ("ondemand",), 2400.0, 48.3)
    assert (device.load, device.system) == ("0.10 0.20 0.30", "Linux 6.6.31")
    check_device(device, TARGET, place="ssh://board")


def test_big_and_little_cores_are_told_apart():
    mixed = RASPBERRY_PI_5.replace("0xd0b", "0xd03", 2).replace("0xd0b", "0xfff", 1)
    assert device_from_answer(mixed).machine.model == "2x Cortex-A53 + 1x ARM core 0xfff + 1x Cortex-A76"


def test_a_system_that_shows_little_is_no_error():
    device = device_from_answer("==edgeq== uname\nLinux 4.4 armv7l\n")
    assert (device.machine.architecture, device.cores) == ("armv7", 0)
    assert (device.governors, device.megahertz, device.celsius, device.board) == ((), None, None, "")


def test_a_core_that_lacks_instructions_is_refused():
    old = device_from_answer(RASPBERRY_PI_5.replace("asimddp", "").replace("0xd0b", "0xd08"))
    with pytest.raises(UnsupportedError, match=r"has asimddp; ssh://board \(4x Cortex-A72\) lacks them"):
        check_device(old, TARGET, place="ssh://board")


@settings(deadline=None)
@given(st.text(max_size=200))
def test_any_answer_is_read_without_an_error(text):
    device_from_answer(text)
    device_from_answer(f"==edgeq== /proc/cpuinfo\n{text}\n==edgeq== uname\n{text}")
