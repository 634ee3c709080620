"""One request, against a real server, in every way it can go wrong."""

from __future__ import annotations

import base64
import ssl
import threading
import time

import pytest
import trustme
from device_api_dcgm.options import DcgmOptions
from device_api_dcgm.scrape import ScrapeFailed, Scraper


def fetch(exporter, **options):
    url = options.pop("url", exporter.url)
    return Scraper(DcgmOptions(url=url, **options)).fetch(threading.Event())


def failure(exporter, **options):
    with pytest.raises(ScrapeFailed) as failed:
        fetch(exporter, **options)
    return str(failed.value)


def kind(exporter, **options):
    with pytest.raises(ScrapeFailed) as failed:
        fetch(exporter, **options)
    return str(failed.value.kind)


def answering(bench, status, headers=(), body=b""):
    exporter = bench.exporter()

    def answer(handler):
        bench.head(handler, status, dict(headers))
        handler.wfile.write(body)

    exporter.answer = answer
    return exporter


def test_the_body_comes_whole(bench, scene):
    exporter = bench.exporter()
    assert fetch(exporter) == scene.bytes
    assert exporter.requests[0]["path"] == "/metrics"
    assert exporter.requests[0]["Accept-Encoding"] == "identity"
    assert "Authorization" not in exporter.requests[0]


@pytest.mark.parametrize("status", [404, 500, 503, 204])
def test_other_statuses_are_failures(bench, status):
    assert failure(answering(bench, status)) == f"HTTP {status}"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(bench, status, tmp_path):
    other = bench.exporter()
    to = other.url.replace("http://", "http://me:s3cret@") + "?token=s3cret"
    token = tmp_path / "token"
    token.write_text("t0ken\n")
    said = failure(answering(bench, status, {"Location": to}), bearer_token_file=str(token))
    assert said.startswith(f"HTTP {status} to http://***@localhost:")
    assert "s3cret" not in said
    assert other.requests == []


@pytest.mark.parametrize("length", [str(10 * 1024 * 1024 + 1), "9" * 5_000])
def test_a_huge_answer_is_refused_by_its_length(bench, length):
    exporter = answering(bench, 200, {"Content-Length": length})
    assert "longer than 8388608 bytes" in failure(exporter)


def test_a_huge_answer_of_no_stated_length_is_refused(bench):
    exporter = answering(bench, 200, {}, b"# x\n" * (11 * 1024 * 1024 // 4))
    assert "longer than 8388608 bytes" in failure(exporter)
    assert len(fetch(exporter, max_body_bytes=12 * 1024 * 1024)) == 11 * 1024 * 1024


def test_a_compressed_answer_is_refused(bench):
    exporter = answering(bench, 200, {"Content-Encoding": "gzip"}, b"\x1f\x8b")
    assert "'gzip'" in failure(exporter)


@pytest.mark.parametrize("stated", [True, False])
def test_a_cut_answer_is_refused(bench, scene, stated):
    body = scene.bytes
    headers = {"Content-Length": str(len(body))} if stated else {}
    assert failure(answering(bench, 200, headers, body[:-40])) == "the answer is cut off"


def test_no_http_at_all(bench):
    exporter = bench.exporter()
    exporter.answer = lambda handler: handler.wfile.write(b"220 mail ready\r\n")
    assert failure(exporter) in ("cannot connect", "the request failed (BadStatusLine)")


@pytest.mark.parametrize(
    ("answer", "options", "expected"),
    [
        ((500,), {}, "status"),
        ((302, {"Location": "http://localhost/"}), {}, "status"),
        ((401,), {}, "credentials"),
        ((200,), {"bearer_token_file": "/nowhere"}, "credentials"),
        ((200,), {"ca_file": "/nowhere", "url": "https://localhost:1/"}, "credentials"),
        ((200, {"Content-Encoding": "gzip"}), {}, "answer"),
        ((200, {"Content-Length": str(1 << 40)}), {}, "answer"),
        ((200, {}, b"cut"), {}, "answer"),
        ((200,), {"url": "http://localhost:1/metrics"}, "connect"),
    ],
)
def test_failures_are_of_a_kind(bench, answer, options, expected):
    assert kind(answering(bench, *answer), **options) == expected


def test_what_does_not_end_is_a_time_out(bench):
    exporter = bench.exporter()
    exporter.answer = exporter.hang
    assert kind(exporter, read_seconds=0.1) == "timeout"
    assert kind(exporter, timeout_seconds=0.1) == "timeout"


def test_nobody_there(bench):
    exporter = bench.exporter()
    exporter.close()
    assert failure(exporter) == "cannot connect: Connection refused"


def test_a_name_nobody_knows(bench):
    said = failure(bench.exporter(), url="http://nowhere.invalid:9400/metrics")
    assert said.startswith("cannot connect: ")
    assert "0x" not in said


def test_a_silent_exporter_meets_the_read_time_out(bench):
    exporter = bench.exporter()
    exporter.answer = exporter.hang
    assert failure(exporter, read_seconds=0.1) == "no data for 0.1 s"


@pytest.mark.parametrize("part", ["head", "body"])
def test_a_dripping_exporter_meets_the_overall_time_out(bench, part):
    exporter = bench.exporter()
    ended = threading.Event()

    def drip(handler):
        if part == "body":
            bench.head(handler, 200, {"Content-Length": "100000"})
        else:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        try:
            while not exporter.released.wait(0.02):
                handler.wfile.write(b"x")
        finally:
            ended.set()

    exporter.answer = drip
    scraper = Scraper(DcgmOptions(url=exporter.url, timeout_seconds=0.3, read_seconds=0.2))
    began = time.monotonic()
    with pytest.raises(ScrapeFailed, match=r"no whole answer in 0\.3 s"):
        scraper.fetch(threading.Event())
    assert time.monotonic() - began < 4.0
    assert ended.wait(5.0), "the connection was not closed"


def test_stop_leaves_a_hanging_exporter_at_once(bench):
    exporter = bench.exporter()
    stop, reached = threading.Event(), threading.Event()

    def hang(handler):
        reached.set()
        exporter.hang(handler)

    exporter.answer = hang
    scraper = Scraper(DcgmOptions(url=exporter.url, read_seconds=60.0, timeout_seconds=60.0))
    results = []
    thread = threading.Thread(target=lambda: results.append(scraper.fetch(stop)))
    thread.start()
    assert reached.wait(5.0)
    began = time.monotonic()
    stop.set()
    thread.join(5.0)
    assert time.monotonic() - began < 2.0
    assert results == [None]


# Credentials


def test_a_bearer_token_is_read_anew_each_time(bench, tmp_path):
    exporter, file = bench.exporter(), tmp_path / "token"
    scraper = Scraper(DcgmOptions(url=exporter.url, bearer_token_file=str(file)))
    for token in ("first", "second"):
        file.write_text(f"{token}\n")
        scraper.fetch(threading.Event())
    sent = [request["Authorization"] for request in exporter.requests]
    assert sent == ["Bearer first", "Bearer second"]


def test_basic_authentication(bench, tmp_path):
    exporter, file = bench.exporter(), tmp_path / "password"
    file.write_text("pä:ss\n")
    fetch(exporter, user="mé", password_file=str(file))
    method, _, code = exporter.requests[0]["Authorization"].partition(" ")
    assert method == "Basic"
    assert base64.b64decode(code).decode() == "mé:pä:ss"


@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials(bench, status, tmp_path):
    file = tmp_path / "token"
    file.write_text("t0ken")
    said = failure(answering(bench, status), bearer_token_file=str(file))
    assert said == f"HTTP {status}: the exporter refuses the credentials"


@pytest.mark.parametrize("content", ["", "\n", "t0ken x", "t0ken\nX-Evil: 1", "t0k\u20acn"])
def test_a_file_without_a_token(bench, tmp_path, content):
    file = tmp_path / "token"
    file.write_text(content)
    exporter = bench.exporter()
    said = failure(exporter, bearer_token_file=str(file))
    assert "bearer_token_file" in said
    assert "t0k" not in said
    assert exporter.requests == []


def test_a_missing_secret(bench, tmp_path):
    said = failure(bench.exporter(), user="me", password_file=str(tmp_path / "none"))
    assert said.startswith("option 'password_file': ")
    assert said.endswith("No such file or directory")


def test_the_environment_gives_no_credentials_and_no_proxy(bench, tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine localhost login a password b\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    exporter = bench.exporter()
    fetch(exporter)
    assert "Authorization" not in exporter.requests[0]


# TLS


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def secure(bench, authority):
    def make(*, client_certificate=False):
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("localhost").configure_cert(context)
        if client_certificate:
            authority.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED

        def wrap(sock):
            # The handshake belongs to the handler's thread.
            return context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)

        return bench.exporter(wrap=wrap)

    return make


@pytest.fixture
def ca_file(authority, tmp_path):
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    return str(file)


def test_an_authority_of_ones_own(secure, scene, ca_file):
    assert fetch(secure(), ca_file=ca_file) == scene.bytes


def test_an_authority_nobody_knows_is_refused(secure):
    assert failure(secure()).startswith("TLS: unable to get local issuer certificate")


def test_a_certificate_of_another_host_is_refused(secure, ca_file):
    exporter = secure()
    url = exporter.url.replace("localhost", "127.0.0.1")
    assert "127.0.0.1" in failure(exporter, url=url, ca_file=ca_file)


def test_a_client_certificate(secure, authority, scene, ca_file, tmp_path):
    exporter = secure(client_certificate=True)
    mine = authority.issue_cert("client")
    both, cert, key = (tmp_path / name for name in ("both.pem", "cert.pem", "key.pem"))
    mine.private_key_and_cert_chain_pem.write_to_path(str(both))
    mine.cert_chain_pems[0].write_to_path(str(cert))
    mine.private_key_pem.write_to_path(str(key))
    assert fetch(exporter, ca_file=ca_file, cert_file=str(both)) == scene.bytes
    pair = {"cert_file": str(cert), "key_file": str(key)}
    assert fetch(exporter, ca_file=ca_file, **pair) == scene.bytes
    assert failure(exporter, ca_file=ca_file)


@pytest.mark.parametrize("option", ["ca_file", "cert_file"])
def test_a_missing_certificate_file_is_named(secure, ca_file, tmp_path, option):
    missing = str(tmp_path / "none.pem")
    assert missing in failure(secure(), **{"ca_file": ca_file, option: missing})


def test_tls_where_there_is_none(bench):
    exporter = bench.exporter()
    assert failure(exporter, url=exporter.url.replace("http", "https")).startswith("TLS: ")
