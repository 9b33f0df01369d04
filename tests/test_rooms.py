"""The folders of tests are those of the code, so that one finds either from the other."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = ("edgeq", "export", "models", "targets")
FOR_TESTS = {"edgeq/plugin_package", "edgeq/parity/meaning/stand_in"}
"""Packages that tests install or import in the place of others'."""
TESTED_ABOVE = {
    "edgeq/recipes/families",
    "targets/compiler/converters",  # with the importer, whose graphs they convert
    "targets/libedgeq/fuzz",  # a program for days, which makes its own inputs
}


def _folders(top, *, of):
    """Folders that hold Python files, as paths below ``of``; links into them are left out."""
    found = {path.parent for path in (of / top).rglob("*.py") if "zoo" not in path.parts}
    return {folder.relative_to(of).as_posix() for folder in found if not any(up.is_symlink() for up in folder.parents)}


def _code():
    return {folder for room in ROOMS for folder in _folders(room, of=ROOT) if not (ROOT / folder).is_symlink()}


def test_every_folder_of_tests_is_one_of_the_code():
    tests = {folder for room in ROOMS for folder in _folders(room, of=ROOT / "tests")}
    strange = {folder for folder in tests - _code() if not folder.startswith(tuple(FOR_TESTS))}
    assert strange == {"targets/libedgeq"}  # its code is C


def test_every_room_has_tests():
    tests = {folder for room in ROOMS for folder in _folders(room, of=ROOT / "tests")}
    without = {room for room in _code() if not any(f"{folder}/".startswith(f"{room}/") for folder in tests)}
    assert without == TESTED_ABOVE
