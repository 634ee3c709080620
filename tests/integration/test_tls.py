"""Who may write over mutual TLS, and what goes wrong with certificates."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from installed import Installed, good
from process import Server, environment
from writing import report

from device_api_core.client import Clientset, Options, Tls
from device_api_core.client.errors import NotServed, PermissionDenied, Unreachable
from device_api_core.client.retry import NO_RETRY
from device_api_core.errors import SettingsError
from device_api_core.server.tls import Certificates, TlsFiles

CLI = str(Path(sys.executable).with_name("device-api"))
OPERATOR = "operator@node"

pytestmark = pytest.mark.once("only grpcio speaks TLS")


@dataclass(frozen=True)
class Authority:
    """A certificate authority and the files it has written."""

    directory: Path
    ca: trustme.CA

    @property
    def ca_file(self) -> Path:
        path = self.directory / "ca.pem"
        self.ca.cert_pem.write_to_path(path)
        return path

    def issue(self, file: str, *names: str, common_name: str | None = None) -> Tls:
        """A client's certificate and key."""
        issued = self.ca.issue_cert(*names, common_name=common_name)
        own, key = self.directory / f"{file}.pem", self.directory / f"{file}.key"
        own.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(key)
        return Tls(self.ca_file, own, key)

    def issue_uri(self, file: str, uri: str) -> Tls:
        """The same with a URI, which is how SPIFFE names workloads. trustme makes none."""
        key = ec.generate_private_key(ec.SECP256R1())
        authority = x509.load_pem_x509_certificate(self.ca.cert_pem.bytes())
        signer = serialization.load_pem_private_key(self.ca.private_key_pem.bytes(), None)
        assert isinstance(signer, ec.EllipticCurvePrivateKey)
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
        certificate = (
            x509.CertificateBuilder(issuer_name=authority.subject, subject_name=x509.Name([]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(authority.not_valid_before_utc)
            .not_valid_after(authority.not_valid_after_utc)
            .add_extension(names, critical=True)
            .sign(signer, hashes.SHA256())
        )
        own, key_file = self.directory / f"{file}.pem", self.directory / f"{file}.key"
        own.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return Tls(self.ca_file, own, key_file)

    @property
    def tls_flags(self) -> tuple[str, ...]:
        """What a server needs to speak TLS, which only grpcio does."""
        own = self.issue("server", "127.0.0.1", "localhost")
        files = (
            f"--tls-cert-file={own.certificate_file}",
            f"--tls-private-key-file={own.key_file}",
        )
        return ("--transport=grpcio", *files)

    @property
    def flags(self) -> tuple[str, ...]:
        """What a server needs to serve providers over TCP."""
        address = "--grpc-provider-address=127.0.0.1:0"
        return (address, *self.tls_flags, f"--client-ca-file={self.ca_file}")


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ours"), trustme.CA())


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("theirs"), trustme.CA())


@pytest.fixture(scope="module")
def secured(ours: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that takes providers over TCP, and operators."""
    flags = (*ours.flags, f"--tls-operator-name={OPERATOR}")
    with Server(tmp_path_factory.mktemp("node"), *flags) as running:
        yield running.wait_serving()
        running.stop()
    assert not running.tracebacks, running.text


@pytest.fixture
def connect() -> Iterator[Callable[..., Clientset]]:
    """Clients of a server's TCP address for providers, or of another of its addresses."""
    clients: list[Clientset] = []

    def to(server: Server, tls: Tls | None, address: str = "provider_tcp") -> Clientset:
        options = Options(tls=tls, retry=NO_RETRY)
        made = Clientset.connect(server.addresses[address], options=options)
        clients.append(made)
        return made

    yield to
    for each in clients:
        each.close()


@pytest.mark.parametrize(
    ("names", "common_name"),
    [(["alpha"], None), ([], "alpha"), (["x.y"], "alpha"), (["x.y", "alpha"], "node")],
)
def test_a_provider_writes_over_mutual_tls_as_a_name_in_its_certificate(
    secured: Server,
    ours: Authority,
    connect: Callable[..., Clientset],
    names: list[str],
    common_name: str | None,
) -> None:
    clients = connect(secured, ours.issue("own", *names, common_name=common_name))
    report(clients, "alpha", "tls-gpu")
    assert "tls-gpu" in {gpu.name for gpu in clients.v1alpha1.gpus.list().items}


@pytest.mark.parametrize("claimed", ["beta", "", "ALPHA", "alph"])
def test_a_provider_cannot_write_as_another_one(
    secured: Server, ours: Authority, connect: Callable[..., Clientset], claimed: str
) -> None:
    clients = connect(secured, ours.issue("own", "alpha"))
    with pytest.raises(PermissionDenied, match="certificate is of alpha"):
        report(clients, claimed, "forged")
    with pytest.raises(PermissionDenied, match="certificate is of alpha"):
        clients.v1alpha1.providers.unregister("tls-gpu", provider_id=claimed)
    with pytest.raises(PermissionDenied), clients.v1alpha1.providers.update(claimed):
        pass
    assert "forged" not in {gpu.name for gpu in clients.v1alpha1.gpus.list().items}


def test_only_a_named_operator_reaches_admin_over_tcp(
    secured: Server, ours: Authority, connect: Callable[..., Clientset]
) -> None:
    provider = connect(secured, ours.issue("own", "alpha"))
    report(provider, "alpha", "kept")
    with pytest.raises(PermissionDenied, match="which is no operator"):
        provider.admin.forget_gpu("kept")
    operator = connect(secured, ours.issue("operator", common_name=OPERATOR))
    assert operator.admin.forget_gpu("kept")
    with pytest.raises(PermissionDenied):
        report(operator, "alpha", "kept")


def test_without_an_operator_admin_is_not_served_over_tcp(
    ours: Authority, start: Callable[..., Server], connect: Callable[..., Clientset]
) -> None:
    server = start(*ours.flags).wait_serving()
    clients = connect(server, ours.issue("operator", common_name=OPERATOR))
    with pytest.raises(NotServed):
        clients.admin.list_providers()


def test_strangers_are_refused_before_any_call(
    secured: Server, ours: Authority, theirs: Authority, connect: Callable[..., Clientset]
) -> None:
    stranger = theirs.issue("own", "alpha")
    trusting = Tls(ours.ca_file, stranger.certificate_file, stranger.key_file)
    for tls in (None, Tls(ours.ca_file), trusting):
        with pytest.raises(Unreachable):
            connect(secured, tls).v1alpha1.gpus.list()


def test_a_client_does_not_trust_a_server_of_another_authority(
    secured: Server, theirs: Authority, connect: Callable[..., Clientset]
) -> None:
    with pytest.raises(Unreachable):
        connect(secured, theirs.issue("own", "alpha")).v1alpha1.gpus.list()


def test_the_consumers_tcp_address_uses_tls_too_and_takes_no_writes(
    secured: Server, ours: Authority, connect: Callable[..., Clientset]
) -> None:
    own = ours.issue("own", "alpha")
    clients = connect(secured, own, "tcp")
    assert clients.v1alpha1.gpus.list().resource_version
    with pytest.raises(NotServed):
        report(clients, "alpha", "over-the-read-only-address")
    with pytest.raises(Unreachable):
        connect(secured, None, "tcp").v1alpha1.gpus.list()


def test_without_client_ca_file_consumers_need_no_certificate(
    ours: Authority, start: Callable[..., Server], connect: Callable[..., Clientset]
) -> None:
    server = start(*ours.tls_flags).wait_serving()
    assert server.addresses["provider_tcp"] == "none"
    assert connect(server, Tls(ours.ca_file), "tcp").v1alpha1.gpus.list().resource_version


@pytest.mark.parametrize("version", ["TLSv1", "TLSv1_1", "TLSv1_2", "TLSv1_3"])
def test_tls_before_1_2_is_refused(secured: Server, ours: Authority, version: str) -> None:
    own = ours.issue("own", "alpha")
    context = ssl.create_default_context(cafile=str(own.ca_file))
    context.load_cert_chain(str(own.certificate_file), str(own.key_file))
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.set_alpn_protocols(["h2"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    host, _, port = secured.addresses["provider_tcp"].rpartition(":")

    def spoken() -> str | None:
        with (
            socket.create_connection((host, int(port)), 10) as plain,
            context.wrap_socket(plain, server_hostname=host) as encrypted,
        ):
            return encrypted.version()

    if version in ("TLSv1_2", "TLSv1_3"):
        assert spoken() == version.replace("_", ".")
    else:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            spoken()


def test_certificates_are_renewed_without_a_restart(
    ours: Authority,
    theirs: Authority,
    tmp_path: Path,
    start: Callable[..., Server],
    connect: Callable[..., Clientset],
) -> None:
    mounted = Authority(tmp_path, ours.ca)
    server = start(*mounted.flags).wait_serving()
    old, new = ours.issue("old", "alpha"), theirs.issue("new", "alpha")
    first = connect(server, old)
    report(first, "alpha", "before")
    # A key that does not belong to the certificate: half of a change.
    certificate = (tmp_path / "server.pem").read_bytes()
    theirs.issue("half", "127.0.0.1")
    (tmp_path / "server.pem").write_bytes((theirs.directory / "half.pem").read_bytes())
    report(connect(server, old), "alpha", "meanwhile")
    refused = server.said("certificates stay as they were")
    assert "cannot be used together" in refused["outcome"]
    (tmp_path / "server.pem").write_bytes(certificate)
    # All of it: another authority vouches for the server and for its clients.
    _ = Authority(tmp_path, theirs.ca).flags
    report(connect(server, new), "alpha", "after")
    server.said("certificates reloaded")
    with pytest.raises(Unreachable):
        report(connect(server, old), "alpha", "never")
    report(first, "alpha", "on-the-connection-that-stood")
    assert "PRIVATE KEY" not in server.text


@pytest.mark.parametrize(
    ("flag", "content", "complaint"),
    [
        ("--tls-cert-file", None, "--tls-cert-file: cannot read"),
        ("--tls-private-key-file", None, "--tls-private-key-file: cannot read"),
        ("--client-ca-file", None, "--client-ca-file: cannot read"),
        ("--tls-cert-file", b"no pem", "cannot be used together"),
        ("--tls-private-key-file", b"no pem", "cannot be used together"),
        ("--client-ca-file", b"no pem", "holds no certificate in PEM"),
        ("--client-ca-file", b"\xff", "holds no certificate in PEM"),
    ],
)
def test_files_that_cannot_be_used_are_refused(
    ours: Authority, tmp_path: Path, flag: str, content: bytes | None, complaint: str
) -> None:
    wrong = tmp_path / "wrong.pem"
    if content is not None:
        wrong.write_bytes(content)
    own = ours.issue("own", "127.0.0.1")
    files = {
        "--tls-cert-file": own.certificate_file,
        "--tls-private-key-file": own.key_file,
        "--client-ca-file": own.ca_file,
    }
    files[flag] = wrong
    with pytest.raises(SettingsError, match=complaint):
        Certificates(TlsFiles(*map(str, files.values())))


def test_an_encrypted_key_stops_the_start_without_asking(
    ours: Authority, tmp_path: Path, start: Callable[..., Server]
) -> None:
    plain, locked = ours.issue("plain", "127.0.0.1"), tmp_path / "locked.key"
    key = serialization.load_pem_private_key(Path(str(plain.key_file)).read_bytes(), None)
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    flags = [f for f in ours.flags if not f.startswith("--tls-private-key-file")]
    server = start(*flags, f"--tls-private-key-file={locked}")
    assert server.exit_code() == 1
    assert "the key is encrypted" in server.text


def cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [CLI, *arguments],
        env=environment({}),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_the_command_line_works_over_mutual_tls(
    secured: Server, ours: Authority, connect: Callable[..., Clientset]
) -> None:
    report(connect(secured, ours.issue("own", "alpha")), "alpha", "seen")
    own = ours.issue("operator", common_name=OPERATOR)
    files = (f"--cert-file={own.certificate_file}", f"--key-file={own.key_file}")
    where = f"--provider-server={secured.addresses['provider_tcp']}"
    done = cli(where, f"--ca-file={own.ca_file}", *files, "forget", "gpu", "seen", "--yes")
    assert done.returncode == 0, done.stderr
    # The socket stays plain while the TCP target is not.
    both = cli(f"--server={secured.socket}", where, f"--ca-file={own.ca_file}", *files, "version")
    assert both.returncode == 0, both.stderr
    without = cli(where, "events")
    assert without.returncode == 3, without.stderr


def test_a_wrong_certificate_file_is_a_wrong_command_line(ours: Authority) -> None:
    alone = cli("--cert-file=a.pem", "get", "gpus")
    assert (alone.returncode, "go together" in alone.stderr) == (2, True)
    absent = cli("--ca-file=/nowhere/ca.pem", "get", "gpus")
    assert (absent.returncode, "cannot read /nowhere/ca.pem" in absent.stderr) == (2, True)


def test_a_provider_on_its_own_reports_over_mutual_tls(
    secured: Server, ours: Authority, tmp_path: Path
) -> None:
    installed = Installed(tmp_path / "plugins").add("far", good("far"))
    own = ours.issue("far", "far")
    command = [CLI, f"--ca-file={own.ca_file}", f"--cert-file={own.certificate_file}"]
    command += [f"--key-file={own.key_file}", "provider", "run", "far"]
    with subprocess.Popen(
        [*command, f"--server={secured.addresses['provider_tcp']}"],
        env=environment({"PYTHONPATH": str(installed.directory)}),
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            watch = secured.api("consumer").watch()
            assert any(event.object.metadata.name == "gpu-far" for event in watch)
            assert secured.api().provider("far").home == "remote"
        finally:
            process.terminate()
        assert process.wait(20) == 0


def test_a_uri_in_the_certificate_is_a_name(
    secured: Server, ours: Authority, connect: Callable[..., Clientset]
) -> None:
    provider_id = "spiffe://node/ns/gpu/sa/alpha"
    clients = connect(secured, ours.issue_uri("uri", provider_id))
    report(clients, provider_id, "tls-gpu-of-a-uri")
    with pytest.raises(PermissionDenied):
        report(clients, "alpha", "forged")
