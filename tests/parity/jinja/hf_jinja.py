"""Jinja as transformers sets it up for chat templates: the yardstick of engine/jinja."""

import datetime
import json

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

# What strftime_now says here, so that outputs stay the same.
NOW = datetime.datetime(2026, 3, 7, 9, 5, 2)


def is_old():
    return tuple(int(part) for part in jinja2.__version__.split(".")[:3]) < (3, 1, 6)


class Generation(jinja2.ext.Extension):
    """{% generation %}: marks what the assistant said; writes its body, in a scope of its own."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_write"), [], [], body).set_lineno(line)

    def _write(self, caller):
        return caller()


class Dictionary:
    def __call__(self, *arguments, **named):
        return dict(*arguments, **named)


class Namespace(jinja2.utils.Namespace):
    """Refuses attributes that begin with an underscore."""

    def __init__(*arguments, **named):
        attributes = dict(*arguments[1:], **named)
        for name in attributes:
            Namespace.check(name)
        jinja2.utils.Namespace.__init__(arguments[0], attributes)

    def __setitem__(self, name, value):
        Namespace.check(name)
        jinja2.utils.Namespace.__setitem__(self, name, value)

    @staticmethod
    def check(name):
        if isinstance(name, str) and name.startswith("_"):
            raise jinja2.exceptions.SecurityError(f"an underscore first: {name}")


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def environment():
    result = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                           extensions=[Generation, jinja2.ext.loopcontrols])
    result.filters["tojson"] = tojson
    result.globals["raise_exception"] = raise_exception
    result.globals["strftime_now"] = NOW.strftime
    result.globals["dict"] = Dictionary()
    result.globals["namespace"] = Namespace
    return result


def render(template, variables):
    """The text, or None and why there is none."""
    try:
        return environment().from_string(template).render(**variables), None
    except Exception as error:  # Python's own errors count as refusals, too.
        return None, f"{type(error).__name__}: {error}"
