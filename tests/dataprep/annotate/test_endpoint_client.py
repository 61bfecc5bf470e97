from __future__ import annotations

import base64
import io
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from chat_server import ChatServer, text_of
from PIL import Image

from sailvit.core.errors import DataError
from sailvit.core.records import Record, Turn
from sailvit.dataprep.annotate.cache import ReplyCache, question_key
from sailvit.dataprep.annotate.client import PATIENCE, Endpoint
from sailvit.dataprep.annotate.local import LocalModel
from sailvit.dataprep.annotate.replies import Reply
from sailvit.dataprep.annotate.transport import EndpointError
from sailvit.dataprep.annotate.wire import EndpointConfig, read_reply, request_body


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


def config(server: ChatServer, **changes: object) -> EndpointConfig:
    values = {"url": server.url, "model": "eyes", "backoff": 0.01, "timeout": 5.0, "concurrency": 4}
    return EndpointConfig.model_validate({**values, **changes})


def question(text: str, *images: object) -> Record:
    return Record(text, (Turn("user", "<image>\n" * len(images) + text),), images)


def echo(body: dict) -> str:
    return f"heard {text_of(body)}"


def picture(level: int) -> np.ndarray:
    return np.full((4, 6, 3), level, dtype=np.uint8)


def test_replies_come_in_order_with_bounded_concurrency():
    def say(body: dict) -> str:
        time.sleep(0.02 * (int(text_of(body)) % 3))
        return echo(body)

    with ChatServer(say) as server:
        endpoint = Endpoint(config(server))
        replies = list(endpoint.ask(question(str(n)) for n in range(30)))
    assert [reply.text for reply in replies] == [f"heard {n}" for n in range(30)]
    assert 2 <= server.most_at_once <= 4
    assert (endpoint.usage.requests, endpoint.usage.repeats, endpoint.usage.failed) == (30, 0, 0)
    assert (endpoint.usage.prompt_tokens, endpoint.usage.answer_tokens) == (3000, 210)


def test_records_are_taken_only_a_few_ahead():
    taken = []

    def records() -> Iterator[Record]:
        for n in range(1000):
            taken.append(n)
            yield question(str(n))

    with ChatServer(echo) as server:
        replies = Endpoint(config(server)).ask(records())
        next(replies)
        assert len(taken) <= 17
        replies.close()


@pytest.mark.parametrize(
    "fault",
    ["429", "500", "503", "408", "not json", "no choices", "no text", "cut", "hang up", "slow"],
)
def test_what_may_pass_is_asked_again(fault):
    with ChatServer(echo, [fault, fault]) as server:
        endpoint = Endpoint(config(server, timeout=0.3 if fault == "slow" else 5.0))
        (reply,) = endpoint.ask([question("hello")])
    assert reply == Reply("heard hello", prompt_tokens=100, answer_tokens=7)
    assert (endpoint.usage.requests, endpoint.usage.repeats) == (3, 2)


def test_one_that_never_passes_is_given_up_and_the_others_go_on():
    def say(body: dict) -> str:
        return echo(body)

    with ChatServer(say) as server:
        server.fault_of = lambda text: "500" if "bad" in text else "ok"
        endpoint = Endpoint(config(server, attempts=3))
        replies = list(endpoint.ask(question(text) for text in ("a", "bad", "c")))
    assert [reply.text for reply in replies] == ["heard a", "", "heard c"]
    assert "3 attempts" in replies[1].error
    assert "500: busy" in replies[1].error
    assert (endpoint.usage.failed, endpoint.usage.requests) == (1, 5)


@pytest.mark.parametrize("status", ["400", "413", "422"])
def test_a_rejected_request_is_not_repeated(status):
    with ChatServer(echo, [status]) as server:
        endpoint = Endpoint(config(server))
        (reply,) = endpoint.ask([question("hello")])
    assert reply.error == f"status {status}: busy"
    assert endpoint.usage.requests == 1


@pytest.mark.parametrize(
    ("fault", "advice"), [("401", "the key"), ("404", "the model's name"), ("redirect", "address")]
)
def test_a_server_that_refuses_everything_ends_the_run(fault, advice):
    with ChatServer(echo, [fault] * 9) as server, pytest.raises(EndpointError, match=advice):
        list(Endpoint(config(server, concurrency=1)).ask(question("hello") for _ in range(50)))
    assert len(server.bodies) <= 6


def test_a_server_that_is_not_there_is_named_at_once():
    with ChatServer(echo) as server:
        settings = config(server)
    begin = time.monotonic()
    with pytest.raises(EndpointError, match="nothing listens at http://127"):
        list(Endpoint(settings).ask([question("hello")]))
    assert time.monotonic() - begin < 2


def test_a_server_that_keeps_failing_ends_the_run(tmp_path):
    with ChatServer(echo) as server:
        server.fault_of = lambda text: "500"
        endpoint = Endpoint(config(server, attempts=1), ReplyCache(tmp_path / "cache"))
        with pytest.raises(EndpointError, match=f"last {PATIENCE} records"):
            list(endpoint.ask(question(str(n)) for n in range(500)))
    assert len(server.bodies) < 60


def test_a_dripping_answer_is_cut_off_by_the_clock():
    with ChatServer(echo) as server:
        done = threading.Event()

        def drip(handler, body):
            handler.send_response(200)
            handler.send_header("Content-Length", "1000")
            handler.end_headers()
            while not done.wait(0.05):
                try:
                    handler.wfile.write(b" ")
                    handler.wfile.flush()
                except OSError:
                    return

        server.handler.answer = drip
        (reply,) = Endpoint(config(server, attempts=1, timeout=0.4)).ask([question("hello")])
        done.set()
    assert "too long" in reply.error


def test_what_is_known_is_not_asked_again_also_by_another_run(tmp_path):
    image = picture(9)
    asked = [question(str(n), image) for n in range(6)]
    with ChatServer(echo) as server:
        first = list(Endpoint(config(server), ReplyCache(tmp_path / "cache")).ask(asked[:4]))
        again = Endpoint(config(server), ReplyCache(tmp_path / "cache"))
        second = list(again.ask(asked))
    assert second[:4] == first
    assert len(server.bodies) == 6
    assert (again.usage.remembered, again.usage.requests) == (4, 2)


def test_failures_are_not_remembered(tmp_path):
    with ChatServer(echo, ["400"]) as server:
        cache = ReplyCache(tmp_path / "cache")
        (first,) = Endpoint(config(server), cache).ask([question("hello")])
        (second,) = Endpoint(config(server), cache).ask([question("hello")])
    assert first.error is not None
    assert second.text == "heard hello"


KILLED = """
import os, sys
from pathlib import Path
from sailvit.core.records import Record, Turn
from sailvit.dataprep.annotate.cache import ReplyCache
from sailvit.dataprep.annotate.client import Endpoint
from sailvit.dataprep.annotate.wire import EndpointConfig
settings = EndpointConfig(url=sys.argv[1], model="eyes", concurrency=1)
endpoint = Endpoint(settings, ReplyCache(Path(sys.argv[2])))
for n, reply in enumerate(endpoint.ask(Record(str(n), (Turn("user", str(n)),)) for n in range(40))):
    if n == 7:
        os._exit(9)
"""


def test_a_killed_run_repeats_nothing(tmp_path):
    with ChatServer(echo) as server:
        command = [sys.executable, "-c", KILLED, server.url, str(tmp_path / "cache")]
        assert subprocess.run(command, check=False).returncode == 9
        before = [text_of(body) for body in server.bodies]
        replies = list(
            Endpoint(
                config(server, concurrency=1, timeout=120.0), ReplyCache(tmp_path / "cache")
            ).ask(Record(str(n), (Turn("user", str(n)),)) for n in range(40))
        )
        after = [text_of(body) for body in server.bodies[len(before) :]]
    assert [reply.text for reply in replies] == [f"heard {n}" for n in range(40)]
    # Only what was under way when the process died may be asked twice.
    assert len(set(before) & set(after)) <= 1
    assert len(before) >= 8


def test_the_key_comes_from_the_environment_and_goes_nowhere_else(tmp_path, monkeypatch):
    monkeypatch.setenv("EYES_KEY", "secret-word")
    monkeypatch.setenv("OPENAI_API_KEY", "for another server")
    with ChatServer(echo) as server:
        list(
            Endpoint(config(server, key_variable="EYES_KEY"), ReplyCache(tmp_path / "cache")).ask(
                [question("a")]
            )
        )
        list(Endpoint(config(server)).ask([question("b")]))
    assert server.keys == ["Bearer secret-word", None]
    assert not any(b"secret-word" in path.read_bytes() for path in tmp_path.iterdir())
    monkeypatch.setenv("EYES_KEY", " ")
    with pytest.raises(DataError, match="EYES_KEY is empty"):
        Endpoint(config(server, key_variable="EYES_KEY"))


def test_without_the_client_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(DataError, match=r"pip install 'sailvit\[annotate\]', or ask a run's model"):
        Endpoint(EndpointConfig(url="http://localhost:1/v1", model="m"))


def test_images_travel_as_data_uris_in_their_places(tmp_path):
    Image.fromarray(picture(1)).save(tmp_path / "a.jpg")
    Image.fromarray(picture(2)).save(tmp_path / "b.bmp")
    record = Record(
        "x",
        (Turn("user", "first <image>\nthen <image> and <image>?"),),
        (tmp_path / "a.jpg", tmp_path / "b.bmp", picture(3)),
    )
    with ChatServer(echo) as server:
        list(Endpoint(config(server, longest=9)).ask([record]))
    (body,) = server.bodies
    assert (body["path"], body["model"], body["max_tokens"]) == ("/v1/chat/completions", "eyes", 9)
    pieces = body["messages"][0]["content"]
    assert [piece["type"] for piece in pieces] == [
        "text",
        "image_url",
        "text",
        "image_url",
        "text",
        "image_url",
        "text",
    ]
    heads, datas = zip(*(p["image_url"]["url"].split(",") for p in pieces[1::2]), strict=True)
    assert heads == ("data:image/jpeg;base64", "data:image/png;base64", "data:image/png;base64")
    assert base64.b64decode(datas[0]) == (tmp_path / "a.jpg").read_bytes()
    for data, level in zip(datas[1:], (2, 3), strict=True):
        assert np.array_equal(
            np.array(Image.open(io.BytesIO(base64.b64decode(data)))), picture(level)
        )


def test_a_missing_or_broken_image_costs_no_request(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    with ChatServer(echo) as server:
        endpoint = Endpoint(config(server))
        asked = [
            question("a", tmp_path / "gone.png"),
            question("b", tmp_path / "broken.png"),
            question("c"),
        ]
        replies = list(endpoint.ask(asked))
    assert "gone.png cannot be read" in replies[0].error
    assert "broken.png cannot be opened (no known kind)" in replies[1].error
    assert replies[2].text == "heard c"
    assert (len(server.bodies), endpoint.usage.failed) == (1, 2)


def test_keys_follow_content_only(tmp_path):
    (tmp_path / "a.png").write_bytes(png := _png(1))
    base = question_key("m", question("hi", tmp_path / "a.png"))
    assert question_key("m", Record("other id", question("hi", png).turns, (png,))) == base
    others = [
        question("ho", png),
        question("hi", _png(2)),
        Record("x", (Turn("system", "hi"),), (png,)),
    ]
    assert (
        len(
            {
                base,
                question_key("n", question("hi", png)),
                *(question_key("m", other) for other in others),
            }
        )
        == 5
    )


def _png(level: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture(level)).save(file, format="PNG")
    return file.getvalue()


def test_a_file_that_is_no_cache_is_refused(tmp_path):
    (tmp_path / "cache").write_text(
        "notes to myself, long enough to be taken for a database header" * 20
    )
    with pytest.raises(DataError, match="cannot be used as a cache"):
        ReplyCache(tmp_path / "cache")


def test_the_cache_is_one_readable_file(tmp_path):
    cache = ReplyCache(tmp_path / "cache")
    cache.store("key", Reply("naïve\n", prompt_tokens=3))
    assert cache.recall("key") == Reply("naïve\n", prompt_tokens=3)
    assert cache.recall("other") is None
    cache.close()
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    assert sqlite3.connect(tmp_path / "cache").execute(
        "SELECT count(*) FROM replies"
    ).fetchone() == (1,)


@pytest.mark.parametrize("url", ["localhost:8000", "file:///etc/passwd", "ftp://x/v1"])
def test_only_web_addresses_are_taken(url):
    with pytest.raises(ValueError, match="url"):
        EndpointConfig(url=url, model="m")


def test_a_body_that_is_no_completion_says_where():
    with pytest.raises(ValueError, match=r"choices.0.message.content"):
        read_reply(b'{"choices": [{"message": {"content": 3}}]}')
    assert read_reply(b'{"choices": [{"message": {"content": "x"}}], "usage": null}').text == "x"
    body = request_body(EndpointConfig(url="http://x", model="m"), question("a"))
    assert body["temperature"] == 0.0


class Batches:
    """A local model that upper-cases, refuses a word, and remembers its batches."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, records: list[Record]) -> list[str]:
        self.sizes.append(len(records))
        if any("bad" in record.id for record in records):
            raise DataError("cannot be tokenized")
        return [record.id.upper() for record in records]


def test_a_local_model_is_asked_in_batches_and_remembered(tmp_path):
    asked, names = Batches(), ["a", "b", "bad", "d", "e", "f", "g"]
    model = LocalModel(asked, "ours", cache=ReplyCache(tmp_path / "cache"), batch=3)
    replies = list(model.ask(question(name) for name in names))
    assert [reply.text for reply in replies] == ["A", "B", "", "D", "E", "F", "G"]
    assert replies[2].error == "cannot be tokenized"
    assert asked.sizes == [3, 1, 1, 1, 3, 1]
    again = LocalModel(asked, "ours", cache=ReplyCache(tmp_path / "cache"), batch=7)
    assert list(again.ask(question(name) for name in names)) == replies
    assert asked.sizes[6:] == [1]
    assert (again.usage.remembered, again.usage.failed) == (6, 1)


def test_a_local_model_survives_an_image_that_is_gone(tmp_path):
    model = LocalModel(Batches(), "ours")
    replies = list(model.ask([question("a"), question("b", Path(tmp_path / "gone.png"))]))
    assert replies[0].text == "A"
    assert "gone.png" in replies[1].error
    assert model.usage.failed == 1
