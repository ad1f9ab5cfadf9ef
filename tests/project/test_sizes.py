"""Sizes that keep the code readable. An exception is a line here, with its reason."""

import ast

FILE_LINES = 400
FUNCTION_LINES = 50
ARGUMENTS = 6
CODE = {".py", ".lua", ".sh"}


def functions(modules):
    """Each function with a name that says where it is."""
    for path, tree in modules.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path}:{node.lineno} {node.name}", node


def test_the_sweep_sees_the_project(modules):
    """The checks of this folder see the packages and the tests, not an empty folder."""
    seen = {path.parts[0] for path in modules}
    assert {"worker", "training", "schemas", "dashboard", "deploy", "tests"} <= seen
    assert len(modules) >= 120
    assert sum(1 for _ in functions(modules)) >= 800


def test_no_file_is_long(texts):
    """A code file has at most 400 lines."""
    lines = {str(path): text.count("\n") for path, text in texts.items() if path.suffix in CODE}
    assert {path: count for path, count in lines.items() if count > FILE_LINES} == {}


def test_no_function_is_long(modules):
    """A function has at most 50 lines, its docstring included."""
    lines = {name: node.end_lineno - node.lineno + 1 for name, node in functions(modules)}
    assert {name: count for name, count in lines.items() if count > FUNCTION_LINES} == {}


def test_no_function_takes_many_arguments(modules):
    """A function takes at most six arguments."""
    many = {}
    for name, node in functions(modules):
        given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        count = sum(argument.arg not in ("self", "cls") for argument in given)
        if count > ARGUMENTS:
            many[name] = count
    assert many == {}
