"""Conversations and tools for the chat templates in templates/."""

import json
import pathlib

TEMPLATES = pathlib.Path(__file__).resolve().parent / "templates"

TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "description": "The weather of a place, in \"words\".", "parameters": {
        "type": "object", "properties": {"city": {"type": "string", "description": "Name, such as Zürich"}, "days": {"type": ["integer", "null"], "default": 1},
                                         "units": {"type": "array", "items": {"type": "string"}}}, "required": ["city"]}}},
    {"type": "function", "function": {"name": "ping", "description": "Is <it> up?", "parameters": {"type": "object", "properties": {}}, "return": {"type": "bool"}}},
]


def message(role, content, **fields):
    return {"role": role, "content": content, **fields}


CALL = {"id": "abc123def", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Zürich", "days": 2, "x": 1.0, "y": None}}}

CHATS = [
    [message("user", "Hello!")],
    [message("system", "Be terse."), message("user", "2+2?")],
    [message("system", " Spaces around \n"), message("user", "\n a \n"), message("assistant", "\tb \n"), message("user", "c  ")],
    [message("user", "Hi"), message("assistant", "<think>\nHm.\n</think>\n\nHello."), message("user", "Bye 日本 😀")],
    [message("user", "Hi"), message("assistant", "<think>\nHm.\n</think>\n\nHello.")],
    [message("user", "x"), message("assistant", "y", reasoning_content="because"), message("user", "z")],
    [message("user", "Weather?"), message("assistant", "", tool_calls=[CALL]), message("tool", "{\"t\": 21.5}", tool_call_id="abc123def"),
     message("assistant", "21.5 degrees."), message("user", "Thanks")],
    [message("user", "Weather?"), message("assistant", "Let me see.", tool_calls=[CALL, CALL]), message("tool", "sun", tool_call_id="a"), message("tool", "rain", tool_call_id="b")],
    [message("user", "one"), message("user", "two"), message("assistant", "three")],
    [message("user", [{"type": "text", "text": " parts "}, {"type": "image"}])],
    [message("system", "/no_think Do it."), message("user", "<tool_response>r</tool_response>")],
    [message("user", "")],
    [],
]


def variables(chat, tools=None, generation=True, **more):
    return {"messages": chat, "tools": tools, "documents": None, "add_generation_prompt": generation, "bos_token": "<s>", "eos_token": "</s>", **more}


def cases():
    """(template's name, variables) of each."""
    found = []
    for path in sorted(TEMPLATES.glob("*.jinja")):
        name = path.name.removesuffix(".jinja")
        text = path.read_text(encoding="utf-8")
        for chat in CHATS:
            found.append((name, variables(chat)))
        found.append((name, variables(CHATS[3], generation=False)))
        if "tools" in text:
            found += [(name, variables(chat, TOOLS)) for chat in (CHATS[0], CHATS[1], CHATS[6])]
        if "thinking" in text:
            switches = [switch for switch in ("enable_thinking", "thinking") if switch in text]
            found += [(name, variables(CHATS[i], **{switch: value})) for switch in switches for i in (1, 3) for value in (True, False)]
    return found


def template(name):
    return (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")


if __name__ == "__main__":
    print(json.dumps([name for name, _ in cases()]))
