"""TLS, tokens, roles and limits: a server that has them all, its files replaced while it serves."""

import base64
import hashlib
import json
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request

import grpc
import pytest

import harness
from harness import (BINARY, Answer, Server, collect, control, control_grpc, generation,
                     inference_grpc, refused, request, trailer)
from swaa.v1 import experiment_service_pb2 as experiments
from swaa.v1 import experiment_service_pb2_grpc as experiments_grpc
from vllm.grpc.engine import vllm_engine_pb2 as vllm
from vllm.grpc.engine import vllm_engine_pb2_grpc as vllm_grpc
from test_operations import sample

TOKENS = {name: hashlib.sha256(f"of the test: {name}".encode()).hexdigest()
          for name in ("alice", "alice-next", "bob", "narrow", "thrifty", "watcher", "operator")}
CALLERS = """
callers:
- {name: alice, tokens: [%(alice)s, %(alice-next)s], roles: [generate]}
- {name: bob, token_sha256: [%(bob_hash)s], roles: [generate]}
- {name: narrow, tokens: [%(narrow)s], roles: [generate], max_running_requests: 1,
   max_queued_requests: 1}
- {name: thrifty, tokens: [%(thrifty)s], roles: [generate], max_tokens_per_minute: 20}
- {name: watcher, tokens: [%(watcher)s], roles: [observe]}
- {name: operator, tokens: [%(operator)s], roles: [administer]}
""" % {**TOKENS, "bob_hash": hashlib.sha256(TOKENS["bob"].encode()).hexdigest()}
CONFIG = """
device: {kv_cache_bytes: 512MiB}
network: {self_check_interval: 100ms}
streaming: {slow_reader_timeout: 1h}  # streams are left unread on purpose
logging: {format: json}
tls:
  certificate_file: %(folder)s/server/tls.crt
  key_file: %(folder)s/server/tls.key
  client_ca_file: %(folder)s/first/ca.crt
access: {token_file: %(folder)s/tokens.yaml, metrics: token}
"""
PATIENCE_SECONDS = 600


def openssl(folder, *arguments):
    subprocess.run(["openssl", *map(str, arguments)], cwd=folder, check=True, capture_output=True)


def make_authority(folder):
    """An authority, and a server and a client that it signed."""
    folder.mkdir()
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl(folder, "req", "-x509", *key, "-days", 2, "-subj", f"/CN={folder.name} authority",
            "-keyout", "ca.key", "-out", "ca.crt")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1")
    for name in ("server", "client"):
        openssl(folder, "req", *key, "-subj", f"/CN={folder.name} {name}",
                "-keyout", f"{name}.key", "-out", f"{name}.csr")
        openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key",
                "-CAcreateserial", "-days", 2, "-extfile", "names", "-out", f"{name}.crt")


def mount(folder, number, certificate, key):
    """Puts a pair into the server's folder as Kubernetes does: all files at once."""
    volume = folder / "server" / f"..{number}"
    volume.mkdir(parents=True)
    (volume / "tls.crt").write_bytes(certificate.read_bytes())
    (volume / "tls.key").write_bytes(key.read_bytes())
    (volume / "tls.key").chmod(0o600)
    link = folder / "server" / "..new"
    link.symlink_to(volume.name)
    link.rename(folder / "server" / "..data")
    for name in ("tls.crt", "tls.key"):
        if not (folder / "server" / name).is_symlink():
            (folder / "server" / name).symlink_to(f"..data/{name}")


def await_true(condition, what, server):
    until = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < until, f"never came: {what}\n{server.log()}"
        time.sleep(0.05)


class TokenSender(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    def __init__(self, token, more=()):
        self.metadata = [("authorization", f"Bearer {token}"), *more]

    def _send(self, continuation, details, message):
        return continuation(details._replace(metadata=self.metadata), message)

    intercept_unary_unary = intercept_unary_stream = _send


class Client:
    """Whoever has this token, or none."""

    def __init__(self, server, who=None, authority="first", own_certificate=True, more=()):
        folder = server.secrets

        def read(name):
            return (folder / name).read_bytes()
        pair = (read("first/client.key"), read("first/client.crt")) if own_certificate else ()
        self.channel = grpc.secure_channel(
            f"127.0.0.1:{server.port}",
            grpc.ssl_channel_credentials(read(f"{authority}/ca.crt"), *pair),
            options=[("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)])
        channel = self.channel
        if who is not None:
            channel = grpc.intercept_channel(channel, TokenSender(TOKENS.get(who, who), more))
        self.inference = inference_grpc.InferenceServiceStub(channel)
        self.control = control_grpc.ControlServiceStub(channel)
        self.experiments = experiments_grpc.ExperimentServiceStub(channel)
        self.engine = vllm_grpc.VllmEngineStub(channel)

    def begin(self, request_id="", max_tokens=200):
        """A stream with its first event taken; it lives on the server while the rest is unread."""
        message = request("Once upon a time", max_tokens=max_tokens, request_id=request_id)
        message.stopping_options.ignore_eos = True
        stream = self.inference.Generate(message, timeout=300)
        answer = Answer()
        answer.take(next(stream))
        return stream, answer

    def abort(self, **target):
        return self.control.Abort(control.AbortRequest(**target), timeout=PATIENCE_SECONDS)


def finish(stream, answer):
    for response in stream:
        answer.take(response)
    return answer


def code_of(call):
    try:
        call()
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


@pytest.fixture(scope="module")
def secured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("secrets")
    make_authority(folder / "first")
    make_authority(folder / "second")
    mount(folder, 0, folder / "first/server.crt", folder / "first/server.key")
    (folder / "tokens.yaml").write_text(CALLERS)
    (folder / "tokens.yaml").chmod(0o600)
    (folder / "swaa.yaml").write_text(CONFIG % {"folder": folder})
    server = Server("--config", str(folder / "swaa.yaml"), "--dtype", "f32")
    server.secrets = folder
    server.volumes = 1
    server.control = Client(server, "operator").control
    yield server
    assert server.stop() == 0, server.log()


def events(server, event):
    lines = [json.loads(line) for line in server.log().splitlines() if line.startswith("{")]
    return [line for line in lines if line.get("event") == event]


def await_event(server, event, **fields):
    """The last line of the log that tells of this, waited for."""
    found = []

    def has_come():
        found[:] = [line for line in events(server, event) if fields.items() <= line.items()]
        return bool(found)
    await_true(has_come, f"{event} {fields}", server)
    return found[-1]


def metrics(server, password):
    page = urllib.request.Request(f"http://127.0.0.1:{server.metrics_port}/metrics")
    word = base64.b64encode(f"prometheus:{password}".encode()).decode()
    page.add_header("Authorization", f"Basic {word}")
    with urllib.request.urlopen(page) as opened:
        return opened.read().decode()


def test_who_has_no_certificate_or_no_tls_stays_outside(secured):
    assert collect(Client(secured, "alice").inference, request("x")).ids
    stranger = Client(secured, "alice", own_certificate=False)
    assert code_of(lambda: collect(stranger.inference, request("x"))) == \
        grpc.StatusCode.UNAVAILABLE
    plain = inference_grpc.InferenceServiceStub(secured.new_channel())
    assert code_of(lambda: collect(plain, request("x"))) == grpc.StatusCode.UNAVAILABLE
    # The server's own probe speaks TLS as well, many times by now.
    assert "self-check" not in secured.log()


def test_clients_need_no_certificate_where_none_is_asked_for(secured):
    first = secured.secrets / "first"
    server = Server("--tls-certificate", str(first / "server.crt"), "--tls-key",
                    str(first / "server.key"), "--dtype", "f32")
    server.secrets = secured.secrets
    assert collect(Client(server, own_certificate=False).inference, request("x", max_tokens=2)).ids
    assert collect(Client(server).inference, request("x", max_tokens=2)).ids
    assert server.stop() == 0, server.log()


@pytest.mark.parametrize("who,allowed", [
    (None, set()), ("nobody-has-this-token", set()),
    ("alice", {"Generate", "GetModelInfo"}), ("alice-next", {"Generate", "GetModelInfo"}),
    ("bob", {"Generate", "GetModelInfo"}),
    ("watcher", {"GetLoad", "GetModelInfo", "ListExperiments"}),
    ("operator", {"GetLoad", "GetModelInfo", "ListExperiments", "Abort", "LoadLora", "Start"})])
def test_roles(secured, who, allowed):
    client = Client(secured, who)
    calls = {
        "Generate": lambda: collect(client.inference, request("x", max_tokens=1)),
        "GetModelInfo": lambda: client.control.GetModelInfo(control.GetModelInfoRequest()),
        "GetLoad": lambda: client.control.GetLoad(control.GetLoadRequest()),
        "Abort": lambda: client.abort(all_requests=True),
        "LoadLora": lambda: client.control.LoadLora(control.LoadLoraRequest(lora_name="x")),
        "ListExperiments": lambda: client.experiments.ListExperiments(
            experiments.ListExperimentsRequest()),
        "Start": lambda: client.experiments.StartExperiment(
            experiments.StartExperimentRequest(experiment_id="x")),
    }
    for name, call in calls.items():
        code = code_of(call)
        known = who in TOKENS
        if name in allowed:
            assert code not in (grpc.StatusCode.PERMISSION_DENIED,
                                grpc.StatusCode.UNAUTHENTICATED), name
        else:
            assert code == (grpc.StatusCode.PERMISSION_DENIED if known else
                            grpc.StatusCode.UNAUTHENTICATED), name


def test_health_is_open_reflection_and_metrics_are_not(secured):
    channel = Client(secured).channel
    health = channel.unary_unary("/grpc.health.v1.Health/Check")
    assert health(b"\x0a\x18swaa.v1.InferenceService", timeout=PATIENCE_SECONDS) == b"\x08\x01"
    reflection = channel.stream_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
    ask = b"\x3a\x00"  # list_services
    assert code_of(lambda: next(reflection(iter([ask])))) == grpc.StatusCode.UNAUTHENTICATED
    token = (("authorization", f"Bearer {TOKENS['bob']}"),)
    assert b"swaa.v1.ControlService" in next(reflection(iter([ask]), metadata=token))
    assert code_of(lambda: channel.unary_unary("/no.such/Method")(b"", metadata=token)) == \
        grpc.StatusCode.PERMISSION_DENIED
    for password in ("", "wrong", TOKENS["bob"]):
        with pytest.raises(urllib.error.HTTPError) as denied:
            metrics(secured, password)
        assert denied.value.code == 401
    page = metrics(secured, TOKENS["watcher"])
    assert sample(page, "swaa_access_refusals_total", reason="unauthenticated") > 0
    assert sample(page, "swaa_tls_certificate_expiry_timestamp_seconds") > time.time()


def asks_health(server, *flags):
    done = subprocess.run([BINARY, "health", "--address", f"127.0.0.1:{server.port}",
                           "--timeout-seconds", "60", *map(str, flags)],
                          capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.strip(), done.stderr


def test_a_probe_asks_over_tls_with_a_certificate_and_without_a_token(secured):
    first = secured.secrets / "first"
    # As in a pod: who the server is does not matter, and what it has is all that there is.
    mine = ("--tls-certificate", first / "server.crt", "--tls-key", first / "server.key")
    unverified = ("--tls-unverified", "--tls-ca", first / "server.crt")
    for flags in (unverified, ("--tls-ca", first / "ca.crt")):
        for question in ((), ("--live",)):
            assert asks_health(secured, *flags, *mine, *question)[:2] == (0, "SERVING")
    for flags in (unverified,  # no certificate
                  ("--tls-ca", secured.secrets / "second/ca.crt", *mine), ()):
        code, said, why = asks_health(secured, *flags)
        assert (code, said) == (1, "") and "UNAVAILABLE" in why, flags
    code, _, why = asks_health(secured, "--tls-unverified")
    assert code == 1 and "--tls-ca" in why


def test_an_id_belongs_to_its_token(secured):
    alice, bob, operator = (Client(secured, who) for who in ("alice", "bob", "operator"))
    for mine in (alice, operator):
        stream, answer = alice.begin("hers", max_tokens=2000)
        assert code_of(lambda: bob.abort(request_id="hers")) == grpc.StatusCode.NOT_FOUND
        assert refused(bob.inference, request("x", request_id="hers")).code() == \
            grpc.StatusCode.ALREADY_EXISTS
        assert code_of(lambda: bob.abort(request_id="hers")) == grpc.StatusCode.NOT_FOUND
        assert code_of(lambda: alice.abort(all_requests=True)) == grpc.StatusCode.PERMISSION_DENIED
        assert mine.abort(request_id="hers").aborted_requests == 1
        assert finish(stream, answer).finished.finish_reason == generation.FINISH_REASON_CANCELLED
        await_true(lambda: code_of(lambda: alice.abort(request_id="hers")) ==
                   grpc.StatusCode.NOT_FOUND, "the end of the stream", secured)
    for who, status in (("bob", "NOT_FOUND"), ("alice", "OK"), ("operator", "OK")):
        await_event(secured, "audit", action="Abort", target="hers", caller=who, status=status)


def test_a_gateways_calls_have_the_rights_of_their_token(secured):
    asked = vllm.GenerateRequest(
        request_id="through-a-gateway", tokenized={"input_ids": [1, 2]}, stream=True,
        sampling_params=vllm.SamplingParams(temperature=0, max_tokens=200, ignore_eos=True))
    assert code_of(lambda: list(Client(secured).engine.Generate(asked))) == \
        grpc.StatusCode.UNAUTHENTICATED
    assert code_of(lambda: list(Client(secured, "watcher").engine.Generate(asked))) == \
        grpc.StatusCode.PERMISSION_DENIED
    aborted = vllm.AbortRequest(request_ids=["through-a-gateway"])
    for who, reason in (("bob", "length"), ("alice", "abort"), ("operator", "abort")):
        stream = Client(secured, "alice").engine.Generate(asked)
        next(stream)
        Client(secured, who).engine.Abort(aborted, timeout=PATIENCE_SECONDS)
        assert list(stream)[-1].complete.finish_reason == reason, who


def test_prefixes_of_one_token_are_not_anothers(secured):
    prompt = request("The same beginning of every prompt. " * 40, max_tokens=1)
    cached = [collect(Client(secured, who).inference, prompt).finished.usage.cached_prompt_tokens
              for who in ("alice", "bob", "alice")]
    assert cached[0] == 0 and cached[1] == 0 and cached[2] >= 64


def crowd(server, client, ids):
    """Sends requests of which one may wait: that one's id and stream. The others are refused."""
    calls = {one: client.inference.Generate(request("x", request_id=one), timeout=300)
             for one in ids}
    await_true(lambda: sum(call.done() for call in calls.values()) == len(ids) - 1,
               "the refusal of all but one", server)
    for call in calls.values():
        if call.done():
            assert call.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert trailer(call, "swaa-error-reason") == "caller_queue_full"
            assert int(trailer(call, "grpc-retry-pushback-ms")) > 0
    return [(one, call) for one, call in calls.items() if not call.done()][0]


def test_requests_beyond_the_places_wait_and_beyond_the_queue_are_refused(secured):
    narrow = Client(secured, "narrow")
    stream, answer = narrow.begin("first", max_tokens=2000)
    _, waits = crowd(secured, narrow, ["a", "b", "c"])
    assert secured.load().running_requests == 1
    # Others are not held up.
    assert collect(Client(secured, "bob").inference, request("x")).ids
    assert narrow.abort(request_id="first").aborted_requests == 1
    finish(stream, answer)
    assert finish(waits, Answer()).ids
    # One that leaves while it waits for its turn frees its place in the queue.
    stream, answer = narrow.begin("second", max_tokens=2000)
    one, waits = crowd(secured, narrow, ["d", "e", "f"])
    assert narrow.abort(request_id=one).aborted_requests == 1
    assert code_of(lambda: next(waits)) == grpc.StatusCode.CANCELLED
    one, waits = crowd(secured, narrow, ["g", "h"])
    waits.cancel()
    await_event(secured, "request", id=one)
    _, waits = crowd(secured, narrow, ["i", "j"])
    narrow.abort(request_id="second")
    finish(stream, answer)
    assert finish(waits, Answer()).ids
    secured.await_idle()


def test_tokens_a_minute(secured):
    thrifty = Client(secured, "thrifty")
    assert len(collect(thrifty.inference, request("x " * 20, max_tokens=40)).ids) > 1
    error = refused(thrifty.inference, request("x"))
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert trailer(error, "swaa-error-reason") == "caller_tokens_spent"
    assert int(trailer(error, "grpc-retry-pushback-ms")) > 1000


def test_caller_and_trace_stand_in_the_log(secured):
    trace, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    for header, logged in ((f"00-{trace}-{span}-01", (trace, span)), ("00-nonsense", (None, None))):
        client = Client(secured, "bob", more=[("traceparent", header)])
        answer = collect(client.inference, request("x", max_tokens=1))
        line = await_event(secured, "request", id=answer.accepted.request_id)
        assert line["caller"] == "bob"
        assert (line.get("trace_id"), line.get("parent_span_id")) == logged


def test_tokens_reload_across_a_running_stream(secured):
    path = secured.secrets / "tokens.yaml"

    def replace(text):
        before = len(secured.log())
        new = path.with_suffix(".new")
        new.write_text(text)
        new.chmod(0o600)
        new.rename(path)
        return before
    bob = Client(secured, "bob")
    stream, answer = bob.begin()
    replace("\n".join(line for line in CALLERS.splitlines() if "bob" not in line))
    await_true(lambda: code_of(lambda: collect(bob.inference, request("x", max_tokens=1))) ==
               grpc.StatusCode.UNAUTHENTICATED, "the end of bob's token", secured)
    assert collect(Client(secured, "alice").inference, request("x")).ids
    assert len(finish(stream, answer).ids) == 200
    for bad, says in (("callers: []", "nobody could call"),
                      ("callers: [{name: a, tokens: [short], roles: [generate]}]", "5 bytes"),
                      ("callers: [{name: a, token: x}]", "no such key"), ("[", "no YAML")):
        before = replace(bad)
        await_true(lambda: "tokens stays as it was" in secured.log()[before:],
                   f"the refusal of {bad}", secured)
        assert says in secured.log()[before:]
        assert collect(Client(secured, "alice").inference, request("x", max_tokens=1)).ids
    replace(CALLERS)
    await_true(lambda: code_of(lambda: collect(bob.inference, request("x", max_tokens=1))) ==
               grpc.StatusCode.OK, "bob's token again", secured)
    assert not any(token in secured.log() for token in TOKENS.values())


def certificate_of(server):
    """What a new connection is shown."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    own = server.secrets / "first"
    context.load_cert_chain(own / "client.crt", own / "client.key")
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        with context.wrap_socket(raw) as wrapped:
            return ssl.DER_cert_to_PEM_cert(wrapped.getpeercert(binary_form=True))


def pem(path):
    return ssl.DER_cert_to_PEM_cert(ssl.PEM_cert_to_DER_cert(path.read_text()))


def test_a_rotated_certificate_drops_no_stream(secured):
    folder = secured.secrets
    old = Client(secured, "alice")
    stream, answer = old.begin()
    assert certificate_of(secured) == pem(folder / "first/server.crt")

    def rotate(certificate, key):
        mount(folder, secured.volumes, folder / certificate, folder / key)
        secured.volumes += 1
    # A pair that does not match changes nothing.
    before = len(secured.log())
    rotate("second/server.crt", "first/server.key")
    await_true(lambda: "tls stays as it was" in secured.log()[before:], "a refusal", secured)
    assert "is not the key of the certificate" in secured.log()[before:]
    assert certificate_of(secured) == pem(folder / "first/server.crt")
    # Another authority's: who trusts the first alone could not connect again.
    rotate("second/server.crt", "second/server.key")
    await_true(lambda: certificate_of(secured) == pem(folder / "second/server.crt"),
               "the second certificate", secured)
    assert collect(Client(secured, "bob", authority="second").inference, request("x")).ids
    assert code_of(lambda: collect(Client(secured, "bob").inference, request("x"))) == \
        grpc.StatusCode.UNAVAILABLE
    assert collect(old.inference, request("x")).ids, "the old connection goes on"
    assert len(finish(stream, answer).ids) == 200
    rotate("first/server.crt", "first/server.key")
    await_true(lambda: certificate_of(secured) == pem(folder / "first/server.crt"),
               "the first certificate", secured)
    page = metrics(secured, TOKENS["watcher"])
    assert sample(page, "swaa_secret_reloads_total", kind="tls", result="failed") >= 1
    assert sample(page, "swaa_secret_reloads_total", kind="tls", result="ok") >= 2


def run(server, *arguments, who="alice", code=0, tls=True):
    folder = server.secrets
    (folder / "token").write_text(TOKENS[who] + "\n")
    flags = ["--address", f"127.0.0.1:{server.port}", "--token-file", folder / "token"]
    if tls:
        flags += ["--tls-ca", folder / "first/ca.crt", "--tls-certificate",
                  folder / "first/client.crt", "--tls-key", folder / "first/client.key"]
    result = subprocess.run([BINARY, *map(str, [*arguments, *flags])], text=True, input="Hello\n",
                            capture_output=True, timeout=PATIENCE_SECONDS, check=False)
    assert result.returncode == code, result.stderr
    return result.stdout + result.stderr


def test_the_commands_speak_tls_and_send_their_token(secured):
    assert run(secured, "generate", "The sea", "--max-tokens", 2)
    assert run(secured, "chat", "--max-tokens", 2)
    assert "alice has the roles generate" in run(secured, "info", code=1)
    assert "limits" in run(secured, "info", who="watcher")
    assert "aborted 0" in run(secured, "abort", "--all", who="operator")
    assert "no experiments" in run(secured, "experiment", "list", who="watcher")
    assert "full" in run(secured, "bench", "--recipes", "full", "--num-requests", 2,
                         "--prompt-tokens", 20, "--output-tokens", 2)
    assert "UNAVAILABLE" in run(secured, "generate", "x", code=1, tls=False)


@pytest.mark.parametrize("files,says", [
    ("tls: {certificate_file: first/server.crt}", ["tls.key_file: not set"]),
    ("tls: {certificate_file: first/server.crt, key_file: first/client.key}",
     ["tls.key_file", "is not the key of the certificate"]),
    ("tls: {certificate_file: first/ca.key, key_file: first/ca.key}",
     ["tls.certificate_file", "has no certificate"]),
    ("tls: {certificate_file: no.crt, key_file: no.key}", ["tls.certificate_file", "No such file"]),
    ("access: {token_file: first/names}", ["first/names"]),
    ("access: {metrics: token}", ["access.metrics", "without access.token_file"]),
])
def test_wrong_files_end_the_start(secured, tmp_path, files, says):
    path = tmp_path / "swaa.yaml"
    path.write_text(files)
    for more in (["--check-config"], []):
        result = subprocess.run(
            [BINARY, "serve", "--model", str(harness.model_path()), "--config", str(path), *more],
            text=True, capture_output=True, timeout=PATIENCE_SECONDS, check=False,
            cwd=secured.secrets)
        assert result.returncode != 0
        for word in says:
            assert word in result.stderr, result.stderr


def test_tokens_without_tls_and_a_drain_of_those_that_wait_for_their_turn(tmp_path):
    path = tmp_path / "tokens.yaml"
    path.write_text(f"callers: [{{name: narrow, tokens: [{TOKENS['narrow']}], roles: [generate], "
                    "max_running_requests: 1, max_queued_requests: 1}, "
                    "{name: anybody, without_token: on, roles: [observe]}]")
    server = Server("--token-file", str(path), "--drain-grace-seconds", "0")
    channel = grpc.intercept_channel(server.channel, TokenSender(TOKENS["narrow"]))
    narrow = inference_grpc.InferenceServiceStub(channel)
    assert server.load().running_requests == 0, "anybody may observe"
    assert code_of(lambda: collect(server.inference, request("x"))) == \
        grpc.StatusCode.PERMISSION_DENIED
    message = request("Once upon a time", max_tokens=4000)
    message.stopping_options.ignore_eos = True
    first = narrow.Generate(message, timeout=300)
    next(first)
    calls = [narrow.Generate(request("x"), timeout=300) for _ in range(2)]
    await_true(lambda: any(call.done() for call in calls), "a refusal", server)
    waits = [call for call in calls if not call.done()][0]
    assert server.stop() == 0, server.log()
    assert waits.code() == grpc.StatusCode.UNAVAILABLE
    assert trailer(waits, "swaa-error-reason") == "draining"
    assert code_of(lambda: list(first)) == grpc.StatusCode.UNAVAILABLE
