"""The rules of a server, with an engine that answers at once."""

import asyncio
import threading
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from piip.serve.app import application
from piip.serve.batching import Failed, Unavailable
from piip.serve.guard import HERE, Guard, is_here
from piip.serve.limits import Limits
from piip.serve.metrics import Metrics
from piip.serve.wanted import Answer, Wanted
from piip.serve.worker import CallFailed, WorkerDied, WorkerNotReady, WorkerTooSlow

ERRORS = {
    b"broken": CallFailed("not an image"),
    b"deadly": WorkerDied("the decoder ended with exit code -11"),
    b"slow": WorkerTooSlow("the decoder took too long"),
    b"failing": Failed("no memory"),
    b"early": WorkerNotReady("the decoder was not ready after 600 seconds"),
    b"unlucky": Unavailable("the model's process could not begin"),
}
FIELD = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--x--\r\n'
"""a form with no file"""


class Engine:
    """Answers with what was sent and wanted."""

    ready = True

    def __init__(self) -> None:
        self.facts = {"task": "detection", "classes": ["disc", "square"], "formats": ["json", "coco", "picture"]}
        self.facts["thresholds"] = [0.5, 0.125]
        self.limits = Limits(bytes=1000, seconds=20, queue=2)
        self.metrics = Metrics()
        self.go_on = threading.Event()
        self.go_on.set()
        self.began = threading.Semaphore(0)

    async def answer(self, upload: bytes, wanted: Wanted) -> Answer:
        self.began.release()
        if upload in ERRORS:
            raise ERRORS[upload]
        await asyncio.to_thread(self.go_on.wait, 30)
        text = f"{upload.decode()} {wanted.format} {wanted.conf} {wanted.classes}"
        text += "" if wanted.least_scores is None else f" {wanted.least_scores}"
        return Answer(text.encode(), "application/json")

    def close(self) -> None:
        self.ready = False


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def client(engine: Engine) -> Iterator[TestClient]:
    with TestClient(application(engine, Guard(None, HERE)), base_url="http://127.0.0.1:8000") as client:  # type: ignore[arg-type]
        yield client


def test_an_image_as_body_and_as_form(client: TestClient) -> None:
    query = "/predict?conf=0.5&classes=square&format=coco"
    assert client.post(query, content=b"photo").text == "photo coco 0.5 (1,)"
    assert client.post("/predict", files={"file": ("a.jpg", b"photo")}).text == "photo json 0.25 None"


def test_the_score_of_each_class(client: TestClient, engine: Engine) -> None:
    assert client.post("/predict?conf=auto", content=b"photo").text == "photo json 0.125 None (0.5, 0.125)"
    engine.facts["thresholds"] = None
    refused = client.post("/predict?conf=auto", content=b"photo")
    assert (refused.status_code, refused.json()["detail"][:9]) == (400, "conf=auto")


@pytest.mark.parametrize(
    ("query", "body", "status", "said"),
    [
        ("", b"", 400, "no image"),
        ("?format=mask", b"photo", 400, "use json, coco, picture"),
        ("?classes=disk", b"photo", 400, "no class is called disk"),
        ("?conf=2", b"photo", 422, "less than or equal to 1"),
        ("?format=gif", b"photo", 422, "json"),
        ("", b"x" * 1001, 413, "more than 1000 bytes"),
        ("", b"broken", 422, "not an image"),
        ("", b"deadly", 422, "cannot be decoded"),
        ("", b"slow", 504, "not done within 20 seconds"),
        ("", b"early", 503, "not ready after 600 seconds"),
        ("", b"unlucky", 503, "could not begin"),
        ("", b"failing", 500, "no memory"),
    ],
)
def test_what_is_wrong_is_said(client: TestClient, query: str, body: bytes, status: int, said: str) -> None:
    answer = client.post(f"/predict{query}", content=body)
    assert answer.status_code == status
    assert said in answer.text


def test_a_body_without_a_length_is_counted(client: TestClient) -> None:
    pieces = (b"x" * 100 for _ in range(11))
    assert client.post("/predict", content=pieces).status_code == 413


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Content-Type": "multipart/form-data"}, b"no boundary"),
        ({"Content-Type": "multipart/form-data; boundary=x"}, b"--y\r\n\r\n"),
        ({"Content-Type": "multipart/form-data; boundary=x"}, FIELD),
    ],
)
def test_forms_without_an_image_are_refused(client: TestClient, headers: dict[str, str], body: bytes) -> None:
    assert client.post("/predict", content=body, headers=headers).status_code == 400


def test_a_full_queue_sends_away(client: TestClient, engine: Engine) -> None:
    engine.go_on.clear()
    threads = [threading.Thread(target=client.post, args=("/predict",), kwargs={"content": b"photo"}) for _ in range(2)]
    for thread in threads:
        thread.start()
        assert engine.began.acquire(timeout=30)
    answer = client.post("/predict", content=b"photo")
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) >= 1
    assert "piip_under_way 2.0" in client.get("/metrics").text
    engine.go_on.set()
    for thread in threads:
        thread.join()
    assert client.post("/predict", content=b"photo").status_code == 200
    counted = client.get("/metrics").text
    assert 'piip_requests_total{status="200"} 3.0' in counted
    assert 'piip_requests_total{status="429"} 1.0' in counted


def test_health_readiness_and_the_contract(client: TestClient, engine: Engine) -> None:
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/ready").status_code == 200
    assert client.get("/model").json()["limits"] == {"bytes": 1000, "pixels": 50_000_000, "seconds": 20}
    assert "/predict" in client.get("/openapi.json").json()["paths"]
    engine.ready = False
    assert client.get("/ready").status_code == 503


def test_the_page_and_its_parts_load_nothing_from_elsewhere(client: TestClient) -> None:
    for path in ("/", "/page.js", "/view.js", "/page.css"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert "http://" not in answer.text
        assert "https://" not in answer.text


def test_other_names_and_other_sites_are_refused(client: TestClient) -> None:
    assert client.get("/health", headers={"Host": "elsewhere.example"}).status_code == 403
    assert client.post("/predict", content=b"photo", headers={"Origin": "http://elsewhere.example"}).status_code == 403
    assert client.post("/predict", content=b"photo", headers={"Origin": "http://127.0.0.1:8000"}).status_code == 200
    assert client.get("/health", headers={"Host": "localhost:8000"}).status_code == 200
    assert client.get("/health", headers={"Host": "[::1"}).status_code == 403
    assert client.get("/health", headers={"Origin": "http://[::1"}).status_code == 403


def test_a_token_is_asked_for(engine: Engine) -> None:
    with TestClient(application(engine, Guard("secret", None)), base_url="http://0.0.0.0:8000") as client:  # type: ignore[arg-type]
        assert client.get("/").status_code == 200
        assert client.get("/health").status_code == 200
        for path in ("/model", "/metrics"):
            assert client.get(path).status_code == 401
        assert client.post("/predict", content=b"photo").status_code == 401
        assert client.post("/predict", content=b"photo", headers={"Authorization": "Bearer secre"}).status_code == 401
        assert client.post("/predict", content=b"photo", headers={"Authorization": "Bearer secret"}).status_code == 200
        assert client.get("/model", headers={"Authorization": "Bearer s\u00e9cret".encode()}).status_code == 401


@pytest.mark.parametrize(
    ("host", "here"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("127.9.9.9", True), ("::", False), ("server", False)],
)
def test_which_addresses_are_this_machine_alone(host: str, here: bool) -> None:
    assert is_here(host) is here
