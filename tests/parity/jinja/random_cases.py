"""Random templates: expressions and statements put together from what chat templates use."""

VARIABLES = {
    "n": 3, "m": -2, "f": 1.5, "s": " Ab c ", "t": "x<y>\n zé", "e": "", "xs": [3, 1, 2], "ys": ["b", "A", "c", "b"], "none_v": None, "yes": True,
    "d": {"k": "v", "n": 1, "list": [1, 2]}, "ms": [{"role": "user", "content": " Hi\n"}, {"role": "assistant", "content": "<think>\nt\n</think>\n\nA",
    "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1, "y": "é"}}}]}, {"role": "tool", "content": "{\"r\": 1}"}],
}

NUMBERS = ["n", "m", "f", "0", "1", "2", "-1", "7", "2.5", "xs | length", "loop_n", "xs[0]", "d.n"]
TEXTS = ["s", "t", "e", "'a'", "'b c'", "\"q'\"", "'\\n'", "ys[0]", "d.k", "ms[0].content", "ms[1]['content']", "ms[-1].role", "'<think>'", "text_v"]
LISTS = ["xs", "ys", "ms", "d", "[]", "[1, 'a', none]", "d.list", "range(3)", "d.items()", "t", "ms | map(attribute='role') | list", "xs[::-1]", "(1, 2)"]
ANY = ["missing", "none_v", "yes", "false", "d", "xs", "ms[1]", "ms[0].tool_calls", "d.zz", "none"]

NUMBER_FILTERS = ["abs", "int", "float", "round", "round(1)", "string", "default(1)", "tojson"]
TEXT_FILTERS = ["trim", "upper", "lower", "title", "capitalize", "length", "reverse", "replace('b', 'X')", "replace('', '.')", "indent(2)", "list", "first", "last",
                "default('z')", "string", "tojson", "e", "int", "float", "join('-')", "center(9)", "safe", "truncate(5)", "batch(2) | list"]
LIST_FILTERS = ["length", "list", "first", "last", "join", "join(', ')", "tojson", "tojson(indent=2)", "reverse | list", "unique | list", "select | list", "map('string') | list",
                "sort", "max", "min", "string", "map(attribute='role') | list", "selectattr('role', 'equalto', 'user') | list", "reject('none') | list", "batch(2, 0) | list"]
METHODS = ["strip()", "lstrip()", "rstrip('\\n')", "split()", "split('b')", "split('</think>')[-1]", "upper()", "startswith('<')", "endswith('c')", "replace('b', '')", "title()",
           "find('b')", "count('a')", "splitlines()", "rsplit(' ', 1)", "partition(' ')", "capitalize()", "strip().split('x')[0]", "zfill(8)"]
TESTS = ["defined", "none", "string", "number", "mapping", "iterable", "sequence", "odd", "even", "true", "boolean", "integer", "float", "in xs", "undefined", "callable", "eq(3)", "divisibleby(2)"]
OPERATORS = ["+", "-", "*", "/", "//", "%", "~", "==", "!=", "<", "<=", ">", ">=", "in", "not in", "and", "or"]


def expression(rng, depth=3):
    if depth == 0 or rng.random() < 0.15:
        return rng.choice(rng.choice([NUMBERS, TEXTS, LISTS, ANY]))
    kind = rng.randrange(14)
    inner = lambda: expression(rng, depth - 1)  # noqa: E731
    if kind == 0:
        return f"({inner()} {rng.choice(OPERATORS)} {inner()})"
    if kind == 1:
        return f"{inner()} {rng.choice(OPERATORS)} {inner()}"
    if kind == 2:
        return f"{rng.choice(NUMBERS)} {rng.choice(OPERATORS[:7])} {rng.choice(NUMBERS)}"
    if kind == 3:
        return f"{rng.choice(TEXTS)} {rng.choice(['+', '~', '==', 'in', '<', '*'])} {rng.choice(TEXTS + NUMBERS[:2])}"
    if kind == 4:
        return f"({inner()}) | {rng.choice(rng.choice([NUMBER_FILTERS, TEXT_FILTERS, LIST_FILTERS]))}"
    if kind == 5:
        return f"{rng.choice(TEXTS)} | {rng.choice(TEXT_FILTERS)}"
    if kind == 6:
        return f"{rng.choice(LISTS)} | {rng.choice(LIST_FILTERS)}"
    if kind == 7:
        return f"({inner()}).{rng.choice(METHODS)}" if rng.random() < 0.3 else f"{rng.choice(TEXTS[:4] + TEXTS[7:])}.{rng.choice(METHODS)}"
    if kind == 8:
        return f"({inner()} if {inner()} else {inner()})"
    if kind == 9:
        return f"{inner()} is {rng.choice(['', 'not '])}{rng.choice(TESTS)}"
    if kind == 10:
        part = rng.choice(["[0]", "[-1]", "[1:]", "[:-1]", "[::-1]", "[::2]", "[5]", "['k']", ".k", "[1:3]", "[-3:-1]", ".role"])
        return f"{rng.choice(TEXTS[:3] + LISTS)}{part}" if rng.random() < 0.7 else f"({inner()}){part}"
    if kind == 11:
        return f"not {inner()}" if rng.random() < 0.6 else f"-{rng.choice(NUMBERS)}"
    if kind == 12:
        return f"[{inner()}, {inner()}]" if rng.random() < 0.6 else f"{{'a': {inner()}, {rng.choice(TEXTS[:3])}: {inner()}}}"
    return f"({inner()}, {inner()})[{rng.choice(['0', '1', '-1'])}]"


def tag(rng, code):
    return "{%" + rng.choice(["", "", "-", "+"]) + " " + code + " " + rng.choice(["", "", "", "-"]) + "%}"


def white(rng):
    return rng.choice(["", "", " ", "\n", "  ", "\n  ", " x ", "\n\n", "y\n", "\t"])


def body(rng, depth):
    return "".join(statement(rng, depth) + white(rng) for _ in range(rng.randint(1, 3)))


def statement(rng, depth=2, expressions=2):
    value = lambda: expression(rng, expressions)  # noqa: E731
    kind = rng.randrange(9) if depth > 0 else 0
    if kind <= 2:
        return "{{" + rng.choice(["", "", "-"]) + " " + value() + " " + rng.choice(["", "", "-"]) + "}}"
    if kind == 3:
        parts = tag(rng, f"if {value()}") + white(rng) + body(rng, depth - 1)
        if rng.random() < 0.5:
            parts += tag(rng, f"elif {value()}") + white(rng) + body(rng, depth - 1)
        if rng.random() < 0.5:
            parts += tag(rng, "else") + white(rng) + body(rng, depth - 1)
        return parts + tag(rng, "endif")
    if kind == 4:
        condition = rng.choice(["", "", " if x", " if x is string", " if loop_n"])
        inner = rng.choice(["{{ x }}", "{{ loop.index }}{{ x }}", "{% set loop_n = loop.index %}{{ loop_n }}", "{{ loop.last }}", "{{ loop.nextitem }}", "{% if loop.index > 2 %}{% break %}{% endif %}",
                            "{% if x == 1 %}{% continue %}{% endif %}", "{{ x.role }}", "{% set text_v = x ~ '' %}{{ text_v }}"])
        return (tag(rng, f"for x in {rng.choice(LISTS)}{condition}") + white(rng) + inner + white(rng) + body(rng, depth - 1) +
                (tag(rng, "else") + "none" if rng.random() < 0.3 else "") + tag(rng, "endfor"))
    if kind == 5:
        return tag(rng, f"set {rng.choice(['loop_n', 'text_v', 'text_w', 'other'])} = {value()}")
    if kind == 6:
        return tag(rng, "set text_w") + body(rng, depth - 1) + tag(rng, "endset")
    if kind == 7:
        name = rng.choice(["m1", "m2"])
        return ("{% macro " + name + "(a, b=" + rng.choice(["1", "'z'", "n"]) + ") %}{{ a }}" + white(rng) + "{{ b }}{% endmacro %}" + white(rng) +
                "{{ " + name + "(" + value() + rng.choice(["", ", b=2", ", " + value()]) + ") }}")
    return "{% set ns = namespace(c=0) %}{% for x in xs %}{% set ns.c = ns.c + " + rng.choice(["1", "x", "loop.index"]) + " %}{% endfor %}{{ ns.c }}"


def template(rng):
    if rng.random() < 0.6:
        return "{{ " + expression(rng) + " }}"
    return white(rng) + body(rng, 2)
