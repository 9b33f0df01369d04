"""Shared objects of several layouts, loaded from memory where their copy lies."""

import os
import struct
import subprocess

import pytest

from edgeq.targets.toolchain.libedgeq import LIBEDGEQ

CODE = """
static int counter = 40, zeros[5000];
int *given, *const table[] = {&counter, &zeros[4999]};
int __tvm_ffi_sum(void) {
  int sum = *table[0] + *given;
  *table[1] += 2;
  for (int i = 0; i < 5000; i++) sum += zeros[i];
  return sum;
}
"""
PROGRAM = """
#include <stdio.h>
#include <string.h>
#include "library/elf.h"
static char data[1 << 22];
static size_t size;
static void body(void *memory) {
  static int outside = 100;
  const Symbol symbols[] = {{"given", &outside}};
  Elf *elf = elf_copy(memory, data, size);
  elf_load(memory, elf, "code.so", symbols, 1);
  int (*sum)(void);
  void *address = elf_find(elf, "__tvm_ffi_sum");
  memcpy(&sum, &address, sizeof address);
  printf("%d ", sum());
  printf("%d\\n", sum());
}
int main(void) {
  Failure failure;
  Memory memory = {.allocator = DEFAULT_ALLOCATOR, .failure = &failure};
  size = fread(data, 1, sizeof data, stdin);
  if (guarded(&failure, body, &memory) != EDGEQ_OK) puts(failure.sentence);
  release_all(&memory);
}
"""
PARTS = ("elf", "memory", "utf8", "platform_posix", "platform_linux", "quota")
REFUSED = "code.so cannot be loaded: {}; copy or compile the bundle again\n"
LOADED = 1


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """Returns a function that says what a program finds that loads a shared object."""
    folder = tmp_path_factory.mktemp("elf")
    (folder / "main.c").write_text(PROGRAM)
    flags = ["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined"]
    flags += [f"-I{LIBEDGEQ}", f"-I{LIBEDGEQ / 'include'}"]
    sources = [str(folder / "main.c"), *(str(LIBEDGEQ / "library" / f"{part}.c") for part in PARTS)]
    command = [os.environ.get("CC", "cc"), *flags, *sources, "-o", str(folder / "load"), "-lpthread"]
    subprocess.run(command, check=True)
    return lambda data: subprocess.run([folder / "load"], input=data, check=True, capture_output=True).stdout.decode()


@pytest.fixture(scope="module")
def shared_object(tmp_path_factory):
    """Returns a function that gives the bytes of a shared object linked with some flags."""
    folder = tmp_path_factory.mktemp("code")
    (folder / "code.c").write_text(CODE)

    def link(*flags):
        command = [os.environ.get("CC", "cc"), "-shared", "-fPIC", "-O1", "-nostdlib", *flags, str(folder / "code.c")]
        subprocess.run([*command, "-o", str(folder / "code.so")], check=True)
        return (folder / "code.so").read_bytes()

    return link


@pytest.mark.parametrize(
    "flags",
    [
        ("-Wl,-z,noseparate-code", "-Wl,-z,norelro"),
        ("-Wl,-z,separate-code", "-Wl,-z,relro"),
        ("-Wl,-z,noseparate-code", "-Wl,-z,max-page-size=0x200000"),  # more than a copy has room for
        ("-Wl,--hash-style=sysv", "-Wl,-z,max-page-size=0x10000"),
    ],
)
def test_code_runs_whatever_lies_between_its_segments(load, shared_object, flags):
    assert load(shared_object(*flags)) == "142 144\n"


def _segments(data):
    """Places in the file of the entries of segments that are loaded."""
    start, count = struct.unpack_from("<Q", data, 32)[0], struct.unpack_from("<H", data, 56)[0]
    entries = [start + 56 * index for index in range(count)]
    return [entry for entry in entries if struct.unpack_from("<I", data, entry)[0] == LOADED]


def test_segments_in_another_order_are_refused(load, shared_object):
    data = bytearray(shared_object("-Wl,-z,separate-code"))
    first, second = _segments(data)[:2]
    data[first : first + 56], data[second : second + 56] = data[second : second + 56], data[first : first + 56]
    assert load(bytes(data)) == REFUSED.format("a segment lies outside of it, or before another")


def test_a_segment_that_would_move_down_is_refused(load, shared_object):
    data = bytearray(shared_object("-Wl,-z,separate-code"))
    last = _segments(data)[-1]
    struct.pack_into("<Q", data, last + 16, struct.unpack_from("<Q", data, last + 8)[0] - 16)
    assert load(bytes(data)) == REFUSED.format("a segment lies outside of it, or before another")


def test_too_many_segments_are_refused(load, shared_object):
    data = bytearray(shared_object())
    struct.pack_into("<H", data, 56, 17)
    assert load(bytes(data)) == REFUSED.format("its segments lie outside of it, or are too many")
