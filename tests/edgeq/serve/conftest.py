"""Bundles behind a server that listens at a free port of this machine."""

import contextlib
import threading

import httpx
import pytest
import uvicorn

import edgeq
from edgeq.serve.app import Server
from edgeq.serve.limits import Limits
from edgeq.serve.metrics import Metrics
from edgeq.serve.models import load_models
from edgeq.serve.server import bound_socket
from edgeq.targets.builtin.target import load_target


@pytest.fixture(scope="session")
def encoder_bundle(make_bert, make_once):
    def fill(folder):
        edgeq.compress_model(make_bert(max_position_embeddings=48), folder / "checkpoint", recipe="ptq-w8a8")
        edgeq.export_onnx(folder / "checkpoint", folder / "onnx")
        edgeq.compile_bundle(folder / "onnx", folder / "host", target=load_target("host"))

    return make_once("serve-encoder", fill) / "host"


@pytest.fixture(scope="session")
def reranker_bundle(make_bert, make_once):
    def fill(folder):
        checkpoint = make_bert("BertForSequenceClassification", seed=3, num_labels=1, max_position_embeddings=96)
        edgeq.compress_model(checkpoint, folder / "checkpoint", recipe="ptq-w8a8")
        edgeq.export_onnx(folder / "checkpoint", folder / "onnx")
        edgeq.compile_bundle(folder / "onnx", folder / "host", target=load_target("host"))

    return make_once("serve-reranker", fill) / "host"


@contextlib.contextmanager
def _running(bundles, limits):
    metrics = Metrics()
    models = load_models(bundles, limits=limits, metrics=metrics, threads=1)
    app = Server(models, limits=limits, metrics=metrics).app()
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    with bound_socket("127.0.0.1", 0) as bound:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        try:
            address = f"http://127.0.0.1:{bound.getsockname()[1]}"
            with httpx.Client(base_url=address, timeout=60, transport=httpx.HTTPTransport(retries=20)) as client:
                client.get("/health").raise_for_status()
                yield client
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="session")
def running():
    """Returns a context manager that serves bundles by name, and gives a client."""
    return lambda bundles, **limits: _running(bundles, Limits(**limits))


@pytest.fixture(scope="module")
def client(running, encoder_bundle, reranker_bundle, gpt2_bundle):
    bundles = {"encoder": encoder_bundle, "reranker": reranker_bundle, "gpt2": gpt2_bundle}
    with running(bundles, texts=64, tokens=600, body=20_000, together=3) as client:
        yield client
