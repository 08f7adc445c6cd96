"""Every refusal: its code, its reason for machines, and a message that names field and value."""

import grpc
import pytest

from harness import generation, recipes, refused, request, trailer

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
OUT_OF_RANGE = grpc.StatusCode.OUT_OF_RANGE


def with_recipe(**fields):
    return request("x", recipe=recipes.Recipe(**fields))


def layers(**fields):
    return recipes.LayerSet(**fields)


def indices(*values):
    return layers(layers=recipes.LayerIndices(indices=values))


def stride(first, step):
    return layers(stride=recipes.LayerStride(first=first, step=step))


def with_sampling(**fields):
    message = request("x", temperature=None)
    message.sampling_params.MergeFrom(generation.SamplingParams(**fields))
    return message


def with_stopping(**fields):
    message = request("x", max_tokens=None)
    message.stopping_options.MergeFrom(generation.StoppingOptions(**fields))
    return message


def with_response(**fields):
    message = request("x")
    message.response_options.MergeFrom(generation.ResponseOptions(**fields))
    return message


def with_chat(*messages):
    chat = generation.ChatInput()
    for role, content in messages:
        chat.messages.add(content=content).role = role
    return request(chat=chat)


def forced(*ids, max_tokens=4, **fields):
    message = request("x", max_tokens=max_tokens, **fields)
    message.forced_output_ids.ids.extend(ids)
    return message


NAN = float("nan")
INFINITY = float("inf")
W = {"sliding_window_tokens": 64}
VOCABULARY = 49152

# name, request, code, reason, words that the message must hold
CASES = [
    # Recipes.
    ("sinks without a window", with_recipe(sink_tokens=128), INVALID, "invalid_recipe",
     ["recipe.sink_tokens", "128", "sliding_window_tokens"]),
    ("full layers without a window", with_recipe(full_attention_layers=layers(all=True)), INVALID,
     "invalid_recipe", ["recipe.full_attention_layers", "sliding_window_tokens"]),
    ("full decode without a window", with_recipe(full_attention_decode=layers(all=True)), INVALID,
     "invalid_recipe", ["recipe.full_attention_decode", "sliding_window_tokens"]),
    ("a window of zero", with_recipe(sliding_window_tokens=0), INVALID, "invalid_recipe",
     ["recipe.sliding_window_tokens", "0", "at least 1"]),
    ("a layer beyond the model", with_recipe(**W, full_attention_layers=indices(1, 30)), INVALID,
     "invalid_recipe", ["recipe.full_attention_layers", "30", "0 to 29"]),
    ("a decode layer beyond the model", with_recipe(**W, full_attention_decode=indices(99)),
     INVALID, "invalid_recipe", ["recipe.full_attention_decode", "99", "0 to 29"]),
    ("a stride of step zero", with_recipe(**W, full_attention_layers=stride(1, 0)), INVALID,
     "invalid_recipe", ["recipe.full_attention_layers", "step", "0"]),
    ("a stride that selects nothing", with_recipe(**W, full_attention_layers=stride(30, 2)),
     INVALID, "invalid_recipe", ["recipe.full_attention_layers", "30"]),
    ("all: false", with_recipe(**W, full_attention_decode=layers(all=False)), INVALID,
     "invalid_recipe", ["recipe.full_attention_decode", "false"]),
    ("an empty list of layers", with_recipe(**W, full_attention_layers=indices()), INVALID,
     "invalid_recipe", ["recipe.full_attention_layers", "no layer"]),
    ("an empty selection", with_recipe(**W, full_attention_layers=layers()), INVALID,
     "invalid_recipe", ["recipe.full_attention_layers", "selects nothing"]),
    ("a long list of layers", with_recipe(**W, full_attention_layers=indices(*[1] * 31)), INVALID,
     "invalid_recipe", ["recipe.full_attention_layers.layers", "31", "30"]),
    ("a long recipe name", request("x", recipe="r" * 100000), NOT_FOUND, "recipe_not_found",
     ["recipe_name", "rrr", "balanced"]),
    ("a long adapter name", with_recipe(lora_name="l" * 100000), NOT_FOUND, "lora_not_found",
     ["recipe.lora_name", "lll"]),
    ("an unknown thinking mode", with_recipe(thinking_mode=7), INVALID, "unknown_enum_value",
     ["recipe.thinking_mode", "7"]),
    ("thinking on a model without it", with_recipe(thinking_mode=1), INVALID,
     "thinking_mode_not_supported", ["recipe.thinking_mode", "THINKING_MODE_ENABLED", "no thinking"]),
    ("an adapter", with_recipe(lora_name="tuned"), NOT_FOUND, "lora_not_found",
     ["recipe.lora_name", "tuned"]),
    ("an unknown recipe", request("x", recipe="fastest"), NOT_FOUND, "recipe_not_found",
     ["recipe_name", "fastest", "balanced", "window"]),
    ("an empty recipe name", request("x", recipe=""), NOT_FOUND, "recipe_not_found",
     ["recipe_name", '""']),
    # Model and id.
    ("an unknown model", request("x", model="gpt"), NOT_FOUND, "model_not_found",
     ["model", "gpt", "smollm2-135m-instruct"]),
    ("a long id", request("x", request_id="i" * 129), INVALID, "invalid_request_id",
     ["request_id", "129", "128"]),
    ("an unprintable id", request("x", request_id="a\nb"), INVALID, "invalid_request_id",
     ["request_id", "a\\nb", "printable"]),
    # Input.
    ("no input", request(), INVALID, "no_input", ["input", "prompt", "token_ids", "chat"]),
    ("an empty prompt", request(""), INVALID, "empty_input", ["prompt", "empty"]),
    ("no token ids", request(token_ids=generation.TokenIds()), INVALID, "empty_input",
     ["token_ids.ids", "empty"]),
    ("no messages", request(chat=generation.ChatInput()), INVALID, "empty_input",
     ["chat.messages", "empty"]),
    ("a token beyond the vocabulary", request(ids=[1, VOCABULARY]), INVALID,
     "token_out_of_vocabulary", ["token_ids.ids[1]", str(VOCABULARY), str(VOCABULARY - 1)]),
    ("a token beyond int32", request(ids=[2**32 - 1]), INVALID, "token_out_of_vocabulary",
     ["token_ids.ids[0]", str(2**32 - 1)]),
    ("a role unspecified", with_chat((1, "s"), (0, "x")), INVALID, "role_unspecified",
     ["chat.messages[1].role", "ROLE_UNSPECIFIED"]),
    ("tools that are no JSON", request(chat=generation.ChatInput(
        messages=[generation.ChatMessage(role=2, content="x")], tools_json="[{")), INVALID,
     "invalid_chat", ["chat.tools_json", "JSON"]),
    ("fields that give a role", request(chat=generation.ChatInput(
        messages=[generation.ChatMessage(role=2, fields_json='{"role": "x"}')])), INVALID,
     "invalid_chat", ["chat.messages[0].fields_json", "role"]),
    ("a user's message to go on with", request(chat=generation.ChatInput(
        messages=[generation.ChatMessage(role=2, content="x")], continue_final_message=True)),
     INVALID, "invalid_chat", ["chat.continue_final_message", "assistant"]),
    ("an unknown role", with_chat((9, "x")), INVALID, "unknown_enum_value",
     ["chat.messages[0].role", "9"]),
    ("a prompt beyond the context", request(ids=[5] * 8193), OUT_OF_RANGE, "prompt_too_long",
     ["8193", "8192"]),
    # Sampling.
    ("temperature below zero", with_sampling(temperature=-0.5), INVALID, "invalid_sampling_params",
     ["sampling_params.temperature", "-0.5"]),
    ("temperature NaN", with_sampling(temperature=NAN), INVALID, "invalid_sampling_params",
     ["sampling_params.temperature", "nan"]),
    ("temperature infinite", with_sampling(temperature=INFINITY), INVALID,
     "invalid_sampling_params", ["sampling_params.temperature", "inf"]),
    ("top_p zero", with_sampling(top_p=0), INVALID, "invalid_sampling_params",
     ["sampling_params.top_p", "0"]),
    ("top_p above one", with_sampling(top_p=1.5), INVALID, "invalid_sampling_params",
     ["sampling_params.top_p", "1.5"]),
    ("top_p NaN", with_sampling(top_p=NAN), INVALID, "invalid_sampling_params",
     ["sampling_params.top_p", "nan"]),
    ("min_p above one", with_sampling(min_p=1.25), INVALID, "invalid_sampling_params",
     ["sampling_params.min_p", "1.25"]),
    ("frequency_penalty", with_sampling(frequency_penalty=3), INVALID, "invalid_sampling_params",
     ["sampling_params.frequency_penalty", "3"]),
    ("presence_penalty", with_sampling(presence_penalty=-2.5), INVALID, "invalid_sampling_params",
     ["sampling_params.presence_penalty", "-2.5"]),
    ("repetition_penalty", with_sampling(repetition_penalty=0), INVALID, "invalid_sampling_params",
     ["sampling_params.repetition_penalty", "0"]),
    ("a biased token that is none", with_sampling(logit_bias={VOCABULARY: 1}), INVALID,
     "invalid_sampling_params", ["sampling_params.logit_bias", str(VOCABULARY)]),
    ("too many biases", with_sampling(logit_bias=dict.fromkeys(range(301), 1)), INVALID,
     "limit_exceeded", ["sampling_params.logit_bias", "301", "300"]),
    ("a bias NaN", with_sampling(logit_bias={3: NAN}), INVALID, "invalid_sampling_params",
     ["sampling_params.logit_bias", "3", "nan"]),
    # Stopping.
    ("max_tokens zero", with_stopping(max_tokens=0), INVALID, "invalid_stopping_options",
     ["stopping_options.max_tokens", "0"]),
    ("min_tokens above max_tokens", with_stopping(min_tokens=9, max_tokens=8), INVALID,
     "invalid_stopping_options", ["stopping_options.min_tokens", "9", "8"]),
    ("an empty stop string", with_stopping(max_tokens=4, stop_strings=["a", ""]), INVALID,
     "invalid_stopping_options", ["stopping_options.stop_strings[1]", "empty"]),
    ("a stop token that is none", with_stopping(max_tokens=4, stop_token_ids=[2**31]), INVALID,
     "token_out_of_vocabulary", ["stopping_options.stop_token_ids[0]", str(2**31)]),
    # Responses.
    ("too many alternatives", with_response(output_logprobs=21), INVALID, "too_many_logprobs",
     ["response_options.output_logprobs", "21", "20"]),
    ("too many alternatives of the prompt", with_response(prompt_logprobs=4000000000), INVALID,
     "too_many_logprobs", ["response_options.prompt_logprobs", "4000000000", "20"]),
    # What has no other bound than the message's.
    ("a long salt", request("x", cache_salt="s" * 129), INVALID, "limit_exceeded",
     ["cache_salt", "129", "128"]),
    ("a long model name", request("x", model="m" * 257), INVALID, "limit_exceeded",
     ["model", "257", "256"]),
    ("many biased tokens", with_sampling(logit_bias={token: 1 for token in range(301)}), INVALID,
     "limit_exceeded", ["sampling_params.logit_bias", "301", "300"]),
    ("many stop strings", with_stopping(stop_strings=["s"] * 65), INVALID, "limit_exceeded",
     ["stopping_options.stop_strings", "65", "64"]),
    ("a long stop string", with_stopping(stop_strings=["a", "s" * 257]), INVALID,
     "limit_exceeded", ["stopping_options.stop_strings[1]", "257", "256"]),
    ("many stop tokens", with_stopping(stop_token_ids=[7] * 257), INVALID, "limit_exceeded",
     ["stopping_options.stop_token_ids", "257", "256"]),
    ("many messages", with_chat(*[(generation.ROLE_USER, "x")] * 4097), INVALID, "limit_exceeded",
     ["chat.messages", "4097", "4096"]),
    ("a high priority", request("x", priority=101), INVALID, "limit_exceeded",
     ["priority", "101", "-100", "100"]),
    ("a low priority", request("x", priority=-2**31), INVALID, "limit_exceeded",
     ["priority", str(-2**31), "-100"]),
    ("a prompt beyond any context", request("x" * (8 << 20)), OUT_OF_RANGE, "prompt_too_long",
     ["prompt: 8388608 bytes", "8192"]),
    ("a message beyond any context", with_chat((generation.ROLE_USER, "x" * (8 << 20))),
     OUT_OF_RANGE, "prompt_too_long", ["chat.messages[0].content: 8388608 bytes", "8192"]),
    # Forced output.
    ("forced tokens beyond max_tokens", forced(1, 2, 3, max_tokens=2), INVALID,
     "forced_output_too_long", ["forced_output_ids", "3", "max_tokens", "2"]),
    ("a forced token that is none", forced(VOCABULARY), INVALID, "token_out_of_vocabulary",
     ["forced_output_ids.ids[0]", str(VOCABULARY)]),
    ("forced tokens beyond the context", forced(*[5] * 8192, max_tokens=None), OUT_OF_RANGE,
     "forced_output_too_long", ["forced_output_ids", "8192"]),
]


@pytest.mark.parametrize("message,code,reason,words", [case[1:] for case in CASES],
                         ids=[case[0] for case in CASES])
def test_refusal(stub, message, code, reason, words):
    error = refused(stub, message)
    assert error.code() == code, error.details()
    assert trailer(error, "swaa-error-reason") == reason
    for word in words:
        assert word in error.details(), error.details()
    assert not list(error.initial_metadata() or ()), "a refusal sends no headers"


@pytest.mark.parametrize("payload", [
    b"\xff\xff\xff\xff",                 # no message at all
    b"\x1a\x05\xff\xfe\xfd\xfc\xfb",     # prompt: five bytes that are no UTF-8
    b"\x1a\x7f" + b"x",                  # prompt: cut off
], ids=["garbage", "invalid UTF-8", "cut off"])
def test_bytes_that_do_not_parse(server, payload):
    call = server.channel.unary_stream("/swaa.v1.InferenceService/Generate")
    with pytest.raises(grpc.RpcError) as caught:
        next(iter(call(payload, timeout=60)))
    assert caught.value.code() == INVALID, caught.value.details()
    assert trailer(caught.value, "swaa-error-reason") == "malformed_request"
    assert "GenerateRequest" in caught.value.details()


CONTROL = "/swaa.v1.ControlService/"
GARBAGE = b"\xff\xff\xff\xff"
LIMIT = "limit_exceeded"


def text(number, size):
    """Field `number` of a message, a string of so many letters."""
    message = bytes([number << 3 | 2])
    count = size
    while count >= 0x80:
        message, count = message + bytes([count & 0x7f | 0x80]), count >> 7
    return message + bytes([count]) + b"x" * size


@pytest.mark.parametrize("method,payload,code,reason,words", [
    ("GetServerInfo", GARBAGE, INVALID, "malformed_request", ["GetServerInfoRequest"]),
    ("GetModelInfo", GARBAGE, INVALID, "malformed_request", ["GetModelInfoRequest"]),
    ("GetModelInfo", b"\x0a\x02\xff\xfe", INVALID, "malformed_request", ["UTF-8"]),
    ("GetModelInfo", text(1, 257), INVALID, LIMIT, ["model: 257 bytes; at most 256", "xxx"]),
    ("GetModelInfo", text(1, 5), NOT_FOUND, "model_not_found", ["xxxxx", "smollm2-135m-instruct"]),
    ("GetLoad", GARBAGE, INVALID, "malformed_request", ["GetLoadRequest"]),
    ("GetLoad", text(9, 1 << 17), INVALID, LIMIT, ["request: 131076 bytes; at most 65536"]),
    ("Abort", b"\x0a\x02\xff\xfe", INVALID, "malformed_request", ["AbortRequest", "UTF-8"]),
    ("Abort", text(1, 129), INVALID, "invalid_request_id", ["request_id", "129", "at most 128"]),
    ("Abort", text(1, 1 << 20), INVALID, LIMIT, ["request: 1048580 bytes; at most 65536"]),
    ("Abort", b"\x0a\x01\n", INVALID, "invalid_request_id", ["request_id", "\\n", "printable"]),
    ("Abort", b"", INVALID, "no_target", ["target"]),
    ("LoadLora", b"\x12\x02\xff\xfe", INVALID, "malformed_request", ["LoadLoraRequest"]),
    ("LoadLora", text(1, 300), INVALID, LIMIT, ["lora_name: 300 bytes; at most 256"]),
    ("LoadLora", text(1, 3), INVALID, "invalid_path", ["source_path"]),
    ("LoadLora", text(1, 3) + text(2, 9), grpc.StatusCode.FAILED_PRECONDITION, "no_lora_roots",
     ["xxxxxxxxx", "lora.roots"]),
    ("UnloadLora", b"\x0a\x02\xff\xfe", INVALID, "malformed_request", ["UnloadLoraRequest"]),
    ("UnloadLora", text(1, 300), INVALID, LIMIT, ["lora_name: 300 bytes; at most 256"]),
    ("ListLoras", GARBAGE, INVALID, "malformed_request", ["ListLorasRequest"]),
    ("ListRecipes", GARBAGE, INVALID, "malformed_request", ["ListRecipesRequest"]),
], ids=lambda value: value if isinstance(value, str) else "")
def test_control_refusals(server, method, payload, code, reason, words):
    with pytest.raises(grpc.RpcError) as caught:
        server.channel.unary_unary(CONTROL + method)(payload, timeout=60)
    error = caught.value
    assert error.code() == code, error.details()
    assert trailer(error, "swaa-error-reason") == reason
    for word in words:
        assert word in error.details(), error.details()


@pytest.mark.parametrize("method,payload,code,reason,words", [
    ("ListExperiments", GARBAGE, INVALID, "malformed_request", ["ListExperimentsRequest"]),
    ("GetReport", b"\x0a\x02\xff\xfe", INVALID, "malformed_request", ["GetReportRequest"]),
    ("GetReport", text(1, 3), NOT_FOUND, "experiment_not_found", ["xxx", "none"]),
    ("GetAssignment", b"", INVALID, "invalid_unit", ["experiment_unit_id: 0 bytes"]),
    ("GetAssignment", text(1, 257), INVALID, "invalid_unit", ["257 bytes; 1 to 256"]),
    ("RecordOutcome", GARBAGE, INVALID, "malformed_request", ["RecordOutcomeRequest"]),
    ("RecordOutcome", text(1, 5), INVALID, "invalid_outcome", ["outcomes: 0; send 1 to 64"]),
    ("RecordOutcome", text(1, 1 << 17), INVALID, LIMIT, ["at most 65536"]),
    ("RecordOutcome", text(1, 5) + b"\x1a\x00", NOT_FOUND, "request_not_found",
     ["xxxxx", "outcome_token"]),
    ("RecordOutcome", text(1, 5) + text(2, 47) + b"\x1a\x00", INVALID, "invalid_outcome",
     ["outcome_token"]),
    ("StartExperiment", text(1, 3), NOT_FOUND, "experiment_not_found", ["xxx"]),
    ("StopExperiment", b"\x12\x02\xff\xfe", INVALID, "malformed_request", ["UTF-8"]),
    ("StopExperiment", text(1, 3), NOT_FOUND, "experiment_not_found", ["xxx"]),
], ids=lambda value: value if isinstance(value, str) else "")
def test_experiment_refusals(server, method, payload, code, reason, words):
    with pytest.raises(grpc.RpcError) as caught:
        server.channel.unary_unary("/swaa.v1.ExperimentService/" + method)(payload, timeout=60)
    error = caught.value
    assert error.code() == code, error.details()
    assert trailer(error, "swaa-error-reason") == reason
    for word in words:
        assert word in error.details(), error.details()


@pytest.mark.parametrize("method", [
    "GetServerInfo", "GetModelInfo", "GetLoad", "ListLoras", "ListRecipes"])
def test_control_ignores_fields_of_later_versions(server, method):
    server.channel.unary_unary(CONTROL + method)(text(15, 3), timeout=60)


@pytest.mark.parametrize("payload,code", [
    (text(1, 1 << 20), INVALID), (GARBAGE, INVALID), (text(1, 9), NOT_FOUND),
], ids=["a long name", "garbage", "an unknown service"])
def test_health_refuses(server, payload, code):
    with pytest.raises(grpc.RpcError) as caught:
        server.channel.unary_unary("/grpc.health.v1.Health/Check")(payload, timeout=60)
    assert caught.value.code() == code, caught.value


def test_reflection_answers_nonsense(server):
    path = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"

    def ask(payload):
        return list(server.channel.stream_stream(path)(iter([payload]), timeout=60))

    assert not ask(GARBAGE), "it ends the stream"
    answers = ask(text(4, 1 << 20))  # a symbol of a megabyte
    assert len(answers) == 1 and b"not found" in answers[0].lower()


def test_a_message_beyond_16_mib_is_refused(stub):
    error = refused(stub, request("x" * (16 << 20)))
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
