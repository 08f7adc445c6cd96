"""deploy/nginx/swaa.conf before a real server: what passes, what does not, and what an attack costs."""

import pathlib
import socket
import ssl
import struct
import subprocess
import time

import grpc
import pytest

import harness
import swaa
from harness import Server, collect, control, control_grpc, inference_grpc, request
from test_connections import GOAWAY, PREFACE, SETTINGS
from test_hostile import CANCEL, END_HEADERS, HEADERS, RST_STREAM, Attacker, call_headers

CONFIG = pathlib.Path(__file__).resolve().parents[2] / "deploy/nginx/swaa.conf"
MIB = 1 << 20


def openssl(folder, *arguments):
    subprocess.run(["openssl", *map(str, arguments)], cwd=folder, check=True, capture_output=True)


def make_certificates(folder):
    """An authority, and a server and a client that it signed."""
    openssl(folder, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", 2, "-subj", "/CN=ca",
            "-keyout", "ca.key", "-out", "ca.crt")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1")
    for name in ("server", "client"):
        openssl(folder, "req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}",
                "-keyout", f"{name}.key", "-out", f"{name}.csr")
        openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key",
                "-CAcreateserial", "-days", 2, "-extfile", "names", "-out", f"{name}.crt")


class Proxy:
    def __init__(self, folder, upstream_port):
        self.folder = folder
        make_certificates(folder)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        text = CONFIG.read_text()
        for there, here in (("listen 50443", f"listen 127.0.0.1:{self.port}"),
                            ("127.0.0.1:50051", f"127.0.0.1:{upstream_port}"),
                            ("/etc/swaa/tls/server.crt", folder / "server.crt"),
                            ("/etc/swaa/tls/server.key", folder / "server.key"),
                            ("/etc/swaa/tls/clients-ca.crt", folder / "ca.crt")):
            assert there in text
            text = text.replace(there, str(here))
        (folder / "swaa.conf").write_text(text)
        (folder / "nginx.conf").write_text(
            f"user root;\npid {folder}/pid;\nerror_log {folder}/error.log;\n"
            "events { worker_connections 1024; }\n"
            f"http {{ access_log off; client_body_temp_path {folder}/body; "
            f"proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi; "
            f"uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi; "
            f"include {folder}/swaa.conf; }}\n")
        self.process = subprocess.Popen(
            ["/usr/sbin/nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e",
             str(folder / "error.log"), "-g", "daemon off;"])
        until = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                break
            except OSError:
                assert self.process.poll() is None, (folder / "error.log").read_text()
                assert time.monotonic() < until
                time.sleep(0.05)

    def channel(self, certificate=True):
        def read(name):
            return (self.folder / name).read_bytes()
        own = (read("client.key"), read("client.crt")) if certificate else (None, None)
        return grpc.secure_channel(
            f"127.0.0.1:{self.port}", grpc.ssl_channel_credentials(read("ca.crt"), *own),
            options=[("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)])

    def stop(self):
        self.process.terminate()
        self.process.wait(300)


class TlsAttacker(Attacker):
    def __init__(self, proxy):
        context = ssl.create_default_context(cafile=proxy.folder / "ca.crt")
        context.load_cert_chain(proxy.folder / "client.crt", proxy.folder / "client.key")
        context.set_alpn_protocols(["h2"])
        self.socket = context.wrap_socket(
            socket.create_connection(("127.0.0.1", proxy.port)), server_hostname="127.0.0.1")
        self.bytes = b""
        self.socket.sendall(PREFACE)
        self.send(SETTINGS)


@pytest.fixture(scope="module")
def proxied(tmp_path_factory):
    server = Server("--kv-cache-bytes", "256MiB")
    proxy = Proxy(tmp_path_factory.mktemp("proxy"), server.port)
    yield server, proxy
    proxy.stop()
    if server.process.poll() is None:
        assert server.stop() == 0, server.log()


def test_streams_pass_as_they_come(proxied):
    server, proxy = proxied
    stub = inference_grpc.InferenceServiceStub(proxy.channel())
    direct = collect(server.inference, request("The sea", max_tokens=24))
    answer = collect(stub, request("The sea", max_tokens=24))
    assert answer.text == direct.text and len(answer.deltas) == 24
    # Nothing is held back until the end.
    endless = request("The sea", max_tokens=4000)
    endless.stopping_options.ignore_eos = True
    call = stub.Generate(endless, timeout=300)
    while not next(call).HasField("token_delta"):
        pass
    assert server.load().running_requests == 1
    call.cancel()
    server.await_idle()
    long = "word " * 6000
    assert collect(stub, request(long, max_tokens=1)).finished.usage.prompt_tokens > 6000


def test_strangers_and_the_control_plane_stay_outside(proxied):
    _, proxy = proxied
    with pytest.raises(grpc.RpcError):
        collect(inference_grpc.InferenceServiceStub(proxy.channel(certificate=False)),
                request("x", max_tokens=1), timeout=60)
    stub = control_grpc.ControlServiceStub(proxy.channel())
    assert stub.GetModelInfo(control.GetModelInfoRequest(), timeout=60).num_layers == 30
    for call in (lambda: stub.Abort(control.AbortRequest(all_requests=True), timeout=60),
                 lambda: stub.GetLoad(control.GetLoadRequest(), timeout=60)):
        with pytest.raises(grpc.RpcError) as refused:
            call()
        assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
        assert "not served on this network" in refused.value.details()


def test_the_python_client_shows_its_certificate(proxied):
    server, proxy = proxied
    address, folder = f"127.0.0.1:{proxy.port}", proxy.folder
    tls = swaa.Tls(folder / "ca.crt", folder / "client.crt", folder / "client.key")
    with swaa.Client(address, tls=tls, token="passed on") as client:
        answer = client.generate("The sea", max_tokens=4, temperature=0).result()
        assert answer.ids == collect(server.inference, request("The sea", max_tokens=4)).ids
        assert client.model_info().num_layers == 30
        with pytest.raises(swaa.InvalidArgument) as refused:
            client.generate("The sea", recipe=swaa.Recipe(sink_tokens=3)).result()
        assert refused.value.field == "recipe.sink_tokens", "trailers pass the proxy"
    with swaa.Client(address, tls=swaa.Tls(folder / "ca.crt"), retry=None) as stranger:
        with pytest.raises(swaa.Error):
            stranger.generate("The sea", max_tokens=4, timeout_seconds=20).result()


def test_a_message_beyond_the_limit_stops_at_the_proxy(proxied):
    server, proxy = proxied
    before = server.resident_bytes()
    stub = inference_grpc.InferenceServiceStub(proxy.channel())
    with pytest.raises(grpc.RpcError) as refused:
        collect(stub, request("x" * (40 * MIB), max_tokens=1), timeout=60)
    assert refused.value.code() in (grpc.StatusCode.INVALID_ARGUMENT,
                                    grpc.StatusCode.RESOURCE_EXHAUSTED), refused.value
    assert server.resident_bytes() - before < 64 * MIB


def rejected(server):
    return sum(int(float(line.split()[-1])) for line in server.metrics().splitlines()
               if line.startswith("swaa_requests_rejected_total"))


def test_rapid_reset_reaches_nobody(proxied):
    """Three connections at once, which the server alone does not stand (test_hostile.py)."""
    server, proxy = proxied
    before = server.resident_bytes()
    seen = rejected(server)
    attackers = [TlsAttacker(proxy) for _ in range(3)]
    streams = 0
    start = time.monotonic()
    for first in range(0, 20000, 100):
        for attacker in attackers:
            for number in range(first, first + 100):
                streams += 1
                attacker.frame_on(2 * number + 1, HEADERS, END_HEADERS, call_headers())
                attacker.frame_on(2 * number + 1, RST_STREAM, 0, struct.pack(">I", CANCEL))
    seconds = time.monotonic() - start
    asked = time.monotonic()
    stub = inference_grpc.InferenceServiceStub(proxy.channel())
    assert len(collect(stub, request("The sea", max_tokens=2), timeout=60).ids) == 2
    victim = time.monotonic() - asked
    grown = server.resident_bytes() - before
    reached = rejected(server) - seen
    print(f"rapid reset through the proxy: {streams} streams in {seconds:.1f} s, of which {reached} "
          f"reached the server; a victim waits {victim:.2f} s, resident memory {grown / MIB:+.0f} MiB")
    for attacker in attackers:
        attacker.until(GOAWAY)
    # keepalive_requests of each connection is all that can pass.
    assert reached <= 3 * 1000
    assert grown < 64 * MIB


def test_without_a_server_clients_are_told_to_come_again(proxied):
    server, proxy = proxied
    assert server.stop() == 0, server.log()
    with pytest.raises(grpc.RpcError) as refused:
        collect(inference_grpc.InferenceServiceStub(proxy.channel()), request("x", max_tokens=1),
                timeout=60)
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
