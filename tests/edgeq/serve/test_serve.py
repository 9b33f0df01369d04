"""What the server answers, asked by OpenAI's own client and by plain requests."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
import threading

import httpx
import numpy as np
import openai
import pytest

import edgeq
from edgeq.targets.runtime.sampling import Sampling

TEXTS = ["the cat sat", "a dog", "the quick brown fox jumps over the lazy dog", "w1 w2"]


@pytest.fixture(scope="module")
def client_of_openai(client):
    return openai.OpenAI(base_url=f"{client.base_url}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def encoder(encoder_bundle):
    return edgeq.load(encoder_bundle)


@pytest.fixture(scope="module")
def gpt2(gpt2_bundle):
    return edgeq.load(gpt2_bundle)


# ---- embeddings ----


def test_openais_client_gets_the_embeddings_of_the_bundle(client_of_openai, encoder):
    expected = encoder.encode(TEXTS)
    for options in ({}, {"encoding_format": "float"}, {"encoding_format": "base64"}):
        answer = client_of_openai.embeddings.create(model="encoder", input=TEXTS, **options)
        assert [item.index for item in answer.data] == [0, 1, 2, 3]
        found = [item.embedding for item in answer.data]
        if options.get("encoding_format") == "base64":
            import base64

            found = [np.frombuffer(base64.b64decode(value), "<f4") for value in found]
        np.testing.assert_array_equal(np.array(found, np.float32), expected)
    tokens = sum(len(ids) for ids in encoder.tokenize(TEXTS))
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (tokens, tokens)
    one = client_of_openai.embeddings.create(model="encoder", input="a dog", dimensions=expected.shape[1])
    np.testing.assert_array_equal(np.array(one.data[0].embedding, np.float32), expected[1])


def test_clients_at_once_get_what_each_gets_alone(client, encoder):
    texts = [" ".join(f"w{(i * k) % 17}" for k in range(1 + i % 9)) for i in range(60)]
    expected = encoder.encode(texts)

    async def ask_all():
        async with httpx.AsyncClient(base_url=client.base_url, timeout=60) as asker:
            sizes = [1, 3, 1, 7, 2, 1, 20, 1, 5, 19]
            starts = np.cumsum([0, *sizes])[:-1]
            bodies = [
                {"model": "encoder", "input": texts[start : start + size]}
                for start, size in zip(starts, sizes, strict=True)
            ]
            answers = await asyncio.gather(*(asker.post("/v1/embeddings", json=body) for body in bodies))
            return [item["embedding"] for answer in answers for item in answer.json()["data"]]

    np.testing.assert_array_equal(np.array(asyncio.run(ask_all()), np.float32), expected)


# ---- completions ----


def test_openais_client_gets_the_texts_of_the_bundle(client_of_openai, gpt2):
    expected = gpt2.generate(TEXTS[:2], max_new_tokens=7).results()
    answer = client_of_openai.completions.create(model="gpt2", prompt=TEXTS[:2], max_tokens=7)
    assert [choice.text for choice in answer.choices] == [made.text for made in expected]
    assert {choice.finish_reason for choice in answer.choices} <= {"stop", "length"}
    assert answer.usage.completion_tokens == sum(len(made.ids) for made in expected)
    assert answer.usage.prompt_tokens == sum(made.prompt_tokens for made in expected)
    echoed = client_of_openai.completions.create(model="gpt2", prompt=TEXTS[0], max_tokens=7, echo=True)
    assert echoed.choices[0].text == TEXTS[0] + expected[0].text


def test_sampling_seed_and_stop_texts_are_those_of_the_request(client_of_openai, gpt2):
    sampling = Sampling(temperature=1.4, top_p=0.9, seed=5)
    plain = gpt2.generate(TEXTS[0], max_new_tokens=30, sampling=sampling).results()[0]
    asked = {"model": "gpt2", "prompt": TEXTS[0], "max_tokens": 30, "temperature": 1.4, "top_p": 0.9, "seed": 5}
    assert client_of_openai.completions.create(**asked).choices[0].text == plain.text
    stop = plain.text[8:11]
    stopped = client_of_openai.completions.create(**asked, stop=[stop]).choices[0]
    assert (stopped.text, stopped.finish_reason) == (plain.text[: plain.text.index(stop)], "stop")


def test_prompts_may_be_token_ids(client_of_openai, gpt2):
    expected = gpt2.generate([[5, 6, 7], [8]], max_new_tokens=5).results()
    answer = client_of_openai.completions.create(model="gpt2", prompt=[[5, 6, 7], [8]], max_tokens=5)
    assert [choice.text for choice in answer.choices] == [made.text for made in expected]
    answer = client_of_openai.completions.create(model="gpt2", prompt=[5, 6, 7], max_tokens=5)
    assert answer.choices[0].text == expected[0].text


def test_a_stream_gives_the_same_text_piece_by_piece(client_of_openai, gpt2):
    expected = gpt2.generate(TEXTS[:2], max_new_tokens=12).results()
    asked = {"model": "gpt2", "prompt": TEXTS[:2], "max_tokens": 12, "stream": True}
    texts, finishes, usage, pieces = ["", ""], [None, None], None, 0
    for chunk in client_of_openai.completions.create(**asked, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            pieces += 1
            texts[choice.index] += choice.text
            finishes[choice.index] = choice.finish_reason or finishes[choice.index]
    assert texts == [made.text for made in expected]
    assert set(finishes) <= {"stop", "length"}
    assert pieces > 2
    assert usage.completion_tokens == sum(len(made.ids) for made in expected)


def test_a_client_that_goes_away_frees_its_place(client, gpt2):
    """Three texts may run together; four that nobody listens to any more must not keep a fifth waiting."""
    body = {"model": "gpt2", "prompt": TEXTS[0], "max_tokens": 140, "stream": True}
    for _ in range(4):
        with client.stream("POST", "/v1/completions", json=body) as answer:
            next(answer.iter_bytes())
    expected = gpt2.generate("a dog", max_new_tokens=3).results()[0].text
    answer = client.post("/v1/completions", json={"model": "gpt2", "prompt": "a dog", "max_tokens": 3})
    assert answer.json()["choices"][0]["text"] == expected


def test_many_generations_at_once_give_what_each_gives_alone(client, gpt2):
    prompts = [" ".join(f"w{(3 * i + k) % 11}" for k in range(1 + i % 5)) for i in range(9)]
    expected = [gpt2.generate(prompt, max_new_tokens=3 + i).results()[0].text for i, prompt in enumerate(prompts)]

    async def ask_all():
        async with httpx.AsyncClient(base_url=client.base_url, timeout=60) as asker:
            bodies = [{"model": "gpt2", "prompt": prompt, "max_tokens": 3 + i} for i, prompt in enumerate(prompts)]
            answers = await asyncio.gather(*(asker.post("/v1/completions", json=body) for body in bodies))
            return [answer.json()["choices"][0]["text"] for answer in answers]

    assert asyncio.run(ask_all()) == expected


# ---- other routes ----


def test_documents_are_sorted_by_their_scores(client, reranker_bundle):
    reranker = edgeq.load(reranker_bundle)
    scores = [result.scores.values[0] for result in reranker.predict([("the cat", text) for text in TEXTS])]
    order = sorted(range(4), key=lambda index: -scores[index])
    body = {"model": "reranker", "query": "the cat", "documents": TEXTS, "top_n": 3, "return_documents": True}
    for route in ("/rerank", "/v1/rerank"):
        results = client.post(route, json=body).json()["results"]
        assert [item["index"] for item in results] == order[:3]
        assert [item["relevance_score"] for item in results] == [scores[index] for index in order[:3]]
        assert [item["document"] for item in results] == [TEXTS[index] for index in order[:3]]


def test_predictions_are_what_edgeq_run_prints(client, reranker_bundle):
    reranker = edgeq.load(reranker_bundle)
    pairs = [("the cat", "a dog"), ("w1", "w2")]
    for texts in ("the cat sat", TEXTS, pairs):
        answer = client.post("/predict", json={"model": "reranker", "texts": texts})
        given = [texts] if isinstance(texts, str) else texts
        expected = [result.to_json() for result in reranker.predict(given)]
        assert answer.json()["results"] == json.loads(json.dumps(expected))


def test_masked_words_are_filled(running, make_bert, make_once):
    from edgeq.targets.builtin.target import load_target

    def fill(folder):
        checkpoint = make_bert("BertForMaskedLM", max_position_embeddings=48)
        edgeq.compress_model(checkpoint, folder / "checkpoint", recipe="ptq-w8a8", task="fill-mask")
        edgeq.export_onnx(folder / "checkpoint", folder / "onnx")
        edgeq.compile_bundle(folder / "onnx", folder / "host", target=load_target("host"))

    bundle = make_once("serve-masks", fill) / "host"
    texts = ["the [MASK] sat", "a [MASK]"]
    expected = [result.to_json() for result in edgeq.load(bundle).fill(texts)]
    with running({"masks": bundle}) as client:
        assert client.post("/predict", json={"texts": texts}).json()["results"] == json.loads(json.dumps(expected))
        answer = client.post("/predict", json={"texts": "no mask"})
        assert answer.status_code == 422
        assert "has no '[MASK]'" in answer.json()["error"]["message"]
        assert client.post("/predict", json={"texts": texts, "prompt_name": "query"}).status_code == 422
        assert "use /predict" in client.post("/v1/embeddings", json={"input": texts}).json()["error"]["message"]


def test_health_models_and_metrics(client):
    assert client.get("/health").json() == {"status": "ok", "waiting": {"encoder": 0, "reranker": 0, "gpt2": 0}}
    models = client.get("/v1/models").json()["data"]
    assert [(model["id"], model["task"]) for model in models] == [
        ("encoder", "embed"), ("reranker", "classify"), ("gpt2", "generate"),
    ]  # fmt: skip
    before = client.get("/metrics").text
    client.post("/v1/embeddings", json={"model": "encoder", "input": ["a", "b"]})
    after = client.get("/metrics").text
    count = 'edgeq_requests_total{route="/v1/embeddings",status="200"}'

    def value(page, name):
        return float(next((line.split()[-1] for line in page.splitlines() if line.startswith(name)), 0))

    assert value(after, count) == value(before, count) + 1
    assert value(after, 'edgeq_texts_total{model="encoder"}') == value(before, 'edgeq_texts_total{model="encoder"}') + 2
    assert "edgeq_request_seconds_bucket" in after


# ---- what is refused ----


@pytest.mark.parametrize(
    ("route", "body", "status", "message"),
    [
        ("embeddings", {"input": "a"}, 404, "model: say which of encoder, reranker, gpt2 is meant"),
        ("embeddings", {"model": "encode", "input": "a"}, 404, "did you mean 'encoder'?"),
        ("embeddings", {"model": "encoder"}, 422, "input: Field required"),
        ("embeddings", {"model": "encoder", "input": "a", "truncate": True}, 422, "truncate: is not known"),
        ("embeddings", {"model": "encoder", "input": 7}, 422, "input"),
        ("embeddings", {"model": "encoder", "input": "a", "dimensions": 3}, 422, "dimensions: the model's embeddings"),
        ("embeddings", {"model": "encoder", "input": ["a"] * 65}, 422, "a request may have at most 64"),
        ("embeddings", {"model": "encoder", "input": ["w " * 40] * 20}, 422, "tokens, and a request may have at most"),
        ("embeddings", {"model": "encoder", "input": ["a", ""]}, 422, "input: text 2 is empty"),
        ("embeddings", {"model": "encoder", "input": "w " * 60}, 422, "input: text 1 has"),
        ("embeddings", {"model": "encoder", "input": [5, 6]}, 422, "texts are expected, found token ids"),
        ("embeddings", {"model": "encoder", "input": "a", "prompt_name": "query"}, 422, "prompt"),
        ("embeddings", {"model": "gpt2", "input": "a"}, 422, "is for 'generate', which /v1/embeddings is not for"),
        ("completions", {"model": "encoder", "prompt": "a"}, 422, "use /v1/embeddings"),
        ("completions", {"model": "gpt2", "prompt": "a", "n": 2}, 422, "n: Input should be 1"),
        ("completions", {"model": "gpt2", "prompt": "a", "logprobs": 3}, 422, "logprobs"),
        ("completions", {"model": "gpt2", "prompt": "a", "presence_penalty": 1.0}, 422, "is not supported; leave it"),
        ("completions", {"model": "gpt2", "prompt": "a", "max_tokens": 0}, 422, "max_new_tokens must be"),
        ("completions", {"model": "gpt2", "prompt": "a", "temperature": -1}, 422, "temperature must be"),
        ("completions", {"model": "gpt2", "prompt": "a", "stream": True, "max_tokens": 0}, 422, "max_new_tokens"),
        ("completions", {"model": "gpt2", "prompt": [[283]]}, 422, "ids lie in 0..282"),
        ("rerank", {"model": "encoder", "query": "a", "documents": ["b"]}, 422, "which /rerank is not for"),
    ],
)
def test_a_wrong_request_is_answered_with_a_sentence(client, route, body, status, message):
    answer = client.post(f"/v1/{route}", json=body)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert message in error["message"]
    assert error["type"] == "invalid_request_error"
    assert "\n" not in error["message"]


def test_bodies_that_are_no_requests(client):
    for content, status in (
        (b"", 400), (b"{", 400), (b"\xff\xfe", 400), (b"[" * 15_000, 400), (b"[]", 422), (b"null", 422),
        (b'{"model": "encoder", "input": "' + b"a" * 30_000 + b'"}', 413),
    ):  # fmt: skip
        answer = client.post("/v1/embeddings", content=content)
        assert answer.status_code == status, (content[:20], answer.text)
        assert answer.json()["error"]["message"]

    def endless():
        for _ in range(100):
            yield b" " * 1000

    assert client.post("/v1/embeddings", content=endless()).status_code == 413
    assert client.get("/nothing").status_code == 404
    assert client.get("/v1/embeddings").status_code == 405


def test_a_client_that_sends_nothing_is_not_waited_for(running, encoder_bundle):
    with running({"encoder": encoder_bundle}, body_seconds=0.3) as client:
        address = (client.base_url.host, client.base_url.port)
        with socket.create_connection(address, timeout=30) as slow:
            slow.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
            assert slow.recv(100).startswith(b"HTTP/1.1 408")
        assert client.post("/v1/embeddings", json={"input": "a"}).status_code == 200  # the only model needs no name


def test_a_full_queue_refuses_with_429_and_goes_on(running, encoder_bundle, gpt2_bundle):
    with running({"encoder": encoder_bundle, "gpt2": gpt2_bundle}, waiting=4, together=1) as client:
        answer = client.post("/v1/embeddings", json={"model": "encoder", "input": ["a"] * 5})
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
        assert answer.json()["error"]["type"] == "rate_limit_error"
        assert "at most 4 may; try again" in answer.json()["error"]["message"]
        assert client.post("/v1/embeddings", json={"model": "encoder", "input": ["a"] * 4}).status_code == 200
        body = {"model": "gpt2", "prompt": ["a"] * 5, "max_tokens": 2}
        assert client.post("/v1/completions", json=body).status_code == 429


def test_an_encoder_decoder_writes_texts(running, make_once, make_bart):
    from edgeq.targets.builtin.target import load_target

    def fill(folder):
        edgeq.compress_model(make_bart(seed=4, encoder_layers=1), folder / "checkpoint", recipe="ptq-w8a8")
        edgeq.export_onnx(folder / "checkpoint", folder / "onnx")
        edgeq.compile_bundle(folder / "onnx", folder / "host", target=load_target("host"), context=20)

    bundle = make_once("serve-bart", fill) / "host"
    expected = edgeq.load(bundle).rewrite(TEXTS, max_new_tokens=6)
    with running({"bart": bundle}) as client:
        answer = client.post("/v1/completions", json={"prompt": TEXTS, "max_tokens": 6}).json()
    assert [choice["text"] for choice in answer["choices"]] == [made.generated for made in expected]


# ---- the command ----


@pytest.mark.parametrize("as_json", [False, True])
def test_the_command_serves_until_it_is_told_to_stop(encoder_bundle, gpt2_bundle, as_json):
    program = [sys.executable, "-c", "import sys; from edgeq.cli.main import main; sys.exit(main())"]
    arguments = ["serve", f"e={encoder_bundle}", f"g={gpt2_bundle}", "--port", "0", "--grace", "20"]
    arguments += ["--json"] if as_json else []
    process = subprocess.Popen([*program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = (process.stdout if as_json else process.stderr).readline()
        if as_json:
            said = json.loads(line)
            assert said["models"] == {"e": "embed", "g": "generate"}
            address = said["address"]
        else:
            assert "serving e (embed), g (generate) at http://127.0.0.1:" in line, line
            address = line.split(" at ")[1].strip()
        answers = []
        body = {"model": "g", "prompt": "a dog", "max_tokens": 100, "stream": True}

        def listen():
            with httpx.stream("POST", f"{address}/v1/completions", json=body, timeout=60) as answer:
                for part in answer.iter_lines():
                    answers.append(part)
                    begun.set()

        begun = threading.Event()
        listener = threading.Thread(target=listen)
        listener.start()
        assert begun.wait(60)
        process.send_signal(signal.SIGTERM)
        listener.join(60)
        assert answers[-2] == "data: [DONE]"  # a running request was let to its end
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()


def test_wrong_arguments_of_the_command(encoder_bundle, tmp_path):
    from edgeq.cli.main import main

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", str(encoder_bundle), "--port", port]) == 1
    assert main(["serve", str(encoder_bundle), "--port", "65536"]) == 2
    assert main(["serve", str(encoder_bundle), "--host", "no.such.host.invalid"]) == 2
    assert main(["serve", str(encoder_bundle), str(encoder_bundle), "--port", "0"]) == 2
    assert main(["serve", str(tmp_path / "nothing"), "--port", "0"]) == 2
    assert main(["serve", str(encoder_bundle), "--max-body", "much", "--port", "0"]) == 2
