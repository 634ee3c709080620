"""What the server's first steps leave out, and that whoever wants it later has it."""

import subprocess
import sys
import textwrap

import pytest
import trustme


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """The files of an authority, and of a certificate with its key for localhost."""
    directory = tmp_path_factory.mktemp("pem")
    ca = trustme.CA()
    own = ca.issue_cert("localhost")
    ca.cert_pem.write_to_path(directory / "ca.pem")
    own.private_key_and_cert_chain_pem.write_to_path(directory / "own.pem")
    return str(directory / "ca.pem"), str(directory / "own.pem")


def run(script, *arguments):
    start = """
        import sys
        from device_api_core.cli.start import deferred, import_libraries
        import_libraries()
        unused = {"ssl", "_ssl", "asyncio.sslproto", "inspect", "google.protobuf.text_format"}
        assert not unused & set(sys.modules), unused & set(sys.modules)
    """
    code = textwrap.dedent(start) + textwrap.dedent(script)
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_threads_that_speak_tls_at_the_same_time_find_it(certificate):
    """As providers do, with asyncio and without."""
    script = """
        import asyncio, http.client, threading
        authority, own = sys.argv[1:]

        async def answer(reader, writer):
            await reader.readuntil(b"\\r\\n\\r\\n")
            writer.write(b"HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\n\\r\\nok")
            await writer.drain()
            writer.close()
            await writer.wait_closed()

        def with_asyncio(port):
            import ssl
            async def talk():
                trusting = ssl.create_default_context(cafile=authority)
                reader, writer = await asyncio.open_connection("localhost", port, ssl=trusting)
                writer.write(b"GET / HTTP/1.1\\r\\n\\r\\n")
                answers.append((await reader.read()).splitlines()[-1])
                writer.close()
                await writer.wait_closed()
            together.wait()
            asyncio.run(talk())

        def without(port):
            together.wait()
            import ssl
            trusting = ssl.create_default_context(cafile=authority)
            connection = http.client.HTTPSConnection("localhost", port, context=trusting)
            connection.request("GET", "/")
            answers.append(connection.getresponse().read())
            connection.close()

        async def main():
            from ssl import PROTOCOL_TLS_SERVER, SSLContext
            serving = SSLContext(PROTOCOL_TLS_SERVER)
            serving.load_cert_chain(own)
            server = await asyncio.start_server(answer, "localhost", 0, ssl=serving)
            port = server.sockets[0].getsockname()[1]
            threads = [
                threading.Thread(target=each, args=(port,))
                for each in (with_asyncio, without) * 4
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                await asyncio.to_thread(thread.join)
            server.close()

        answers, together = [], threading.Barrier(8)
        asyncio.run(main())
        print(answers == [b"ok"] * 8)
    """
    assert run(script, *certificate) == "True"


def test_threads_may_be_the_first_to_load_a_module():
    """What stands for it is asked by all of them before it is there."""
    script = """
        import asyncio.base_events, threading
        found, together = [], threading.Barrier(8)
        def look():
            together.wait()
            found.append(asyncio.base_events.ssl.SSLContext)
            found.append(asyncio.base_events.sslproto.SSLProtocol)
        threads = [threading.Thread(target=look) for _ in range(8)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        import asyncio.sslproto, ssl
        print(len(found), set(found) == {ssl.SSLContext, asyncio.sslproto.SSLProtocol})
    """
    assert run(script) == "16 True"


def test_a_socket_is_known_for_one_of_tls_or_not():
    script = """
        import asyncio, socket

        async def main():
            loop = asyncio.get_running_loop()
            ours, theirs = socket.socketpair()
            with ours:
                ours.setblocking(False)
                await loop.sock_sendall(ours, b"x")
                assert theirs.recv(1) == b"x" and "ssl" not in sys.modules
                import ssl
                context = ssl.create_default_context()
                options = {"do_handshake_on_connect": False, "server_hostname": "x"}
                try:
                    await loop.sock_sendall(context.wrap_socket(theirs, **options), b"x")
                except TypeError as error:
                    print(error)

        asyncio.run(main())
    """
    assert run(script) == "Socket cannot be of type SSLSocket"


def test_a_messages_text_and_a_functions_signature_are_there():
    script = """
        import asyncio, dataclasses, inspect
        from google.protobuf import json_format, text_format
        from device_api_core._proto import gpu_pb2
        meta = text_format.Parse('name: "gpu-0"', gpu_pb2.ObjectMeta())
        assert json_format.MessageToDict(meta) == {"name": "gpu-0"}
        Point = dataclasses.make_dataclass("Point", [("x", int)])
        assert asyncio.iscoroutinefunction(asyncio.sleep) and not asyncio.iscoroutinefunction(run)
        print(Point.__doc__, inspect.signature(Point))
    """
    assert run(script.replace("(run)", "(print)")) == "Point(x: int) (x: int) -> None"


def test_a_module_that_is_used_while_it_is_deferred_is_loaded():
    script = """
        with deferred("wave", "colorsys", "asyncio"):
            import colorsys, wave, asyncio
            assert "_Deferred" not in str(type(asyncio)), "it was loaded before"
            assert wave.Error.__name__ == "Error"
            assert sys.modules["wave"] is not wave
        assert "colorsys" not in sys.modules
        import wave as now
        assert now.Error is wave.Error
        try:
            wave.nothing
        except AttributeError as error:
            print(error)
    """
    assert run(script) == "module 'wave' has no attribute 'nothing'"


def test_a_module_that_is_not_there_says_so_when_it_is_used():
    script = """
        with deferred("no_such_module"):
            import no_such_module
        try:
            no_such_module.anything
        except ModuleNotFoundError as error:
            print(error)
    """
    assert run(script) == "No module named 'no_such_module'"
