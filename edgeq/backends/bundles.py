"""Bundles: loaded on this machine, or run under the emulator of their processor."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import onnx

from edgeq.arrays import Arrays
from edgeq.backends.compiled import compiled_once
from edgeq.targets.builtin.target import Target, load_target
from edgeq.targets.devices.emulator import run_many, run_with_source
from edgeq.targets.runtime.loader import Bundle, load
from edgeq.targets.runtime.machine import this_machine
from edgeq.targets.runtime.manifest import read_manifest


class LoadedBundle:
    """A bundle on this machine.

    Args:
        bundle: The bundle, loaded. Inputs that it does not know are left out.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self._names = {spec.name for spec in bundle.manifest.inputs}  # not all models know token types

    def __call__(self, feed: Arrays, /) -> Arrays:
        """Runs one batch; see :class:`edgeq.backends.Backend`."""
        return self.bundle.run({name: values for name, values in feed.items() if name in self._names})


class EmulatedBundle:
    """A bundle under the emulator of its processor, which starts once for several batches.

    Args:
        bundle: Its folder.
        target: The target that says which emulator; None looks it up by the bundle's own target.
    """

    def __init__(self, bundle: Path, target: Target | None = None) -> None:
        self._bundle, self._target = bundle, target

    def __call__(self, feed: Arrays, /) -> Arrays:
        """Runs one batch; see :class:`edgeq.backends.Backend`."""
        return self.run_all([feed])[0]

    def run_all(self, feeds: Sequence[Arrays]) -> list[Arrays]:
        """Runs several batches, on one state if the model has any."""
        return run_many(self._bundle, feeds, target=self._target)

    def run_with_encoder_input(self, encoder_input: Arrays, feeds: Sequence[Arrays]) -> tuple[Arrays, list[Arrays]]:
        """Runs the encoder of an encoder-decoder, then the decoder call by call on its state.

        Returns:
            The outputs of the encoder, and those of each call.
        """
        return run_with_source(self._bundle, encoder_input, feeds, target=self._target)


class BundleAccess:
    """How the bundles of a run are reached; a test gives one of its own."""

    def is_native(self, bundle: Path) -> bool:
        """Tells whether this machine's processor runs the bundle."""
        target, machine = read_manifest(bundle).targets[-1], this_machine()
        return machine.architecture == target.architecture and not machine.lacks(target.cpu_flags)

    def load(self, bundle: Path, *, threads: int, verify: bool = True) -> Bundle:
        """Loads a bundle that this machine runs."""
        return load(bundle, threads=threads, verify=verify)

    def emulate(self, bundle: Path, target: Target | None = None) -> EmulatedBundle:
        """Returns a bundle of another machine."""
        return EmulatedBundle(bundle, target)

    def compile_and_run(self, graph: onnx.ModelProto, feed: Arrays, *, bundle: Path) -> Arrays:
        """Compiles a graph for the processor of a bundle that this machine runs, and runs it once."""
        info = read_manifest(bundle).targets[0]
        same = {field: getattr(info, field) for field in ("triple", "cpu", "features", "isa", "cpu_flags")}
        return compiled_once(graph, feed, target=dataclasses.replace(load_target("host"), **same))
