"""The rack's kernel as a C program, made from its Python source, so that the two are the same model at every commit.

The kernel is written in a small part of Python: numbers, records, arrays, ``if``, ``for ... in range``, ``while``. Each
function becomes a C function of the same name, specialised on the types of its arguments as numba does it; records
become structs with the layout of their numpy dtype. gcc compiles it with -O2 and without contraction, so that C and
Python add and multiply the same numbers in the same order.
"""

from __future__ import annotations

import ast
import ctypes
import inspect
import math
import subprocess
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

CFLAGS = ("-ffp-contract=off", "-std=c11", "-shared", "-fPIC")
PRELUDE = """\
#include <stdint.h>
#include <math.h>
static inline int64_t floor_mod(int64_t a, int64_t b) {
  int64_t r = a % b;
  return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}
static inline int64_t floor_div(int64_t a, int64_t b) { return (a - floor_mod(a, b)) / b; }
static inline int64_t min_i(int64_t a, int64_t b) { return b < a ? b : a; }
static inline int64_t max_i(int64_t a, int64_t b) { return b > a ? b : a; }
static inline double min_d(double a, double b) { return b < a ? b : a; }
static inline double max_d(double a, double b) { return b > a ? b : a; }
"""
INT, UINT, FLOAT, BOOL, NONE = "int64_t", "uint64_t", "double", "int", "void"
SCALARS = {"i8": INT, "u8": UINT, "f8": FLOAT, "i4": "int32_t", "u4": "uint32_t", "u1": "uint8_t", "b1": "uint8_t"}


@dataclass(frozen=True)
class Record:
    """Pointer to a struct."""

    dtype: np.dtype[Any]


@dataclass(frozen=True)
class Array:
    """Contiguous array of numbers or structs."""

    dtype: np.dtype[Any]
    ndim: int


CType = str | Record | Array


class NotTranslatableError(Exception):
    """The kernel uses a piece of Python that this translator does not know."""


def _scalar(dtype: np.dtype[Any]) -> str:
    return SCALARS[dtype.str[1:]]


def _widened(ctype: CType) -> CType:
    """What an element of this type is once it is loaded: numba computes in 64 bits."""
    if ctype in ("int32_t", "uint8_t"):
        return INT
    return UINT if ctype == "uint32_t" else ctype


def _unified(a: CType | None, b: CType) -> CType:
    if a is None or a == b:
        return b
    if isinstance(a, str) and isinstance(b, str):
        kinds = {a, b}
        if FLOAT in kinds:
            return FLOAT
        return UINT if kinds == {UINT, BOOL} else INT if kinds == {INT, BOOL} else _mixed(a, b)
    raise NotTranslatableError(f"one name for {a} and {b}")


def _mixed(a: str, b: str) -> str:
    raise NotTranslatableError(f"{a} with {b}: numba would make this a double")


@dataclass
class Program:
    """C source in the making: structs, array types, and one C function for each function and tuple of types."""

    structs: dict[np.dtype[Any], str] = field(default_factory=dict)
    arrays: dict[Array, str] = field(default_factory=dict)
    tables: dict[int, str] = field(default_factory=dict)
    declarations: list[str] = field(default_factory=list)
    functions: dict[tuple[Any, tuple[CType, ...]], tuple[str, CType]] = field(default_factory=dict)
    bodies: list[str] = field(default_factory=list)

    def struct(self, dtype: np.dtype[Any]) -> str:
        """Name of the struct of this dtype; offsets are checked by the C compiler."""
        if dtype not in self.structs:
            name = f"record{len(self.structs)}"
            self.structs[dtype] = name
            lines = [f"typedef struct {name} {{"]
            for key in dtype.names or ():
                kind = dtype.fields[key][0]  # type: ignore[index]
                base, shape = kind.subdtype if kind.subdtype else (kind, ())
                lines.append(f"  {_scalar(base)} {key}{''.join(f'[{n}]' for n in shape)};")
            lines.append(f"}} {name};")
            lines.append(f'_Static_assert(sizeof({name}) == {dtype.itemsize}, "layout");')
            for key in dtype.names or ():
                offset = dtype.fields[key][1]  # type: ignore[index]
                lines.append(f'_Static_assert(__builtin_offsetof({name}, {key}) == {offset}, "layout");')
            self.declarations.append("\n".join(lines))
        return self.structs[dtype]

    def c(self, ctype: CType) -> str:
        """C name of a type."""
        if isinstance(ctype, str):
            return ctype
        if isinstance(ctype, Record):
            return f"{self.struct(ctype.dtype)} *"
        if ctype not in self.arrays:
            element = self.struct(ctype.dtype) if ctype.dtype.names else _scalar(ctype.dtype)
            name = f"array{len(self.arrays)}"
            self.arrays[ctype] = name
            self.declarations.append(f"typedef struct {{ {element} *data; int64_t shape[2]; }} {name};")
        return self.arrays[ctype]

    def table(self, values: np.ndarray) -> str:
        """A constant array of the Python module, as C text that has the array's type."""
        kind = self.c(Array(values.dtype, values.ndim))
        if id(values) not in self.tables:
            name = f"table{len(self.tables)}"
            self.tables[id(values)] = name
            element = _scalar(values.dtype)
            numbers = ", ".join(value.hex() if element == FLOAT else str(value) for value in values.ravel().tolist())
            self.declarations.append(f"static const {element} {name}[] = {{ {numbers} }};")
        shape = ", ".join(str(n) for n in (*values.shape, 0)[:2])
        return f"(({kind}){{ ({_scalar(values.dtype)} *){self.tables[id(values)]}, {{ {shape} }} }})"

    def function(self, python: Any, types: tuple[CType, ...]) -> tuple[str, CType]:
        """Name and return type of the C function for these argument types."""
        plain = getattr(python, "py_func", python)
        key = (plain, types)
        if key not in self.functions:
            name = f"{plain.__name__}_{len(self.functions)}"
            self.functions[key] = (name, NONE)
            result, body = Translator(self, plain, types, name).translate()
            self.functions[key] = (name, result)
            self.bodies.append(body)
        return self.functions[key]

    def source(self) -> str:
        """All of it, callees first."""
        return "\n\n".join([PRELUDE, *self.declarations, *self.bodies]) + "\n"


class Translator:
    """One Python function with given argument types."""

    def __init__(self, program: Program, function: Callable[..., Any], types: tuple[CType, ...], name: str) -> None:
        self.program = program
        self.globals = function.__globals__
        self.name = name
        tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
        if not isinstance(tree, ast.FunctionDef):
            raise NotTranslatableError(f"{function} is no function")
        self.tree = tree
        self.arguments = [argument.arg for argument in tree.args.args]
        self.types: dict[str, CType] = dict(zip(self.arguments, types, strict=True))
        self.parameter_types = types
        self.result: CType | None = None
        self.temporaries = 0

    def translate(self) -> tuple[CType, str]:
        """Return type and C text. Passes over the body until the types of all names stand still."""
        for _ in range(6):
            before = (dict(self.types), self.result)
            self.temporaries = 0
            lines = self.block(self.tree.body)
            if before == (self.types, self.result):
                break
        else:
            raise NotTranslatableError(f"types of {self.name} do not settle")
        result = NONE if self.result is None else self.result
        parameters = []
        entry = []
        for name, ctype in zip(self.arguments, self.parameter_types, strict=True):
            if self.types[name] == ctype:
                parameters.append(f"{self.program.c(ctype)} {name}")
            else:  # assigned another type in the body
                parameters.append(f"{self.program.c(ctype)} {name}_in")
                entry.append(f"{self.program.c(self.types[name])} {name} = {name}_in;")
        local = [f"{self.program.c(t)} {n};" for n, t in self.types.items() if n not in self.arguments]
        head = f"static {self.program.c(result)} {self.name}({', '.join(parameters)})"
        body = "\n".join(f"  {line}" for line in [*entry, *local, *lines])
        return result, f"{head} {{\n{body}\n}}"

    # --- statements ------------------------------------------------------------------------------------------
    def block(self, statements: Sequence[ast.stmt]) -> list[str]:
        return [line for statement in statements for line in self.statement(statement)]

    def statement(self, node: ast.stmt) -> list[str]:
        match node:
            case ast.Expr(value=ast.Constant()) | ast.Pass():
                return []
            case ast.Expr(value=value):
                return [f"{self.expression(value)[0]};"]
            case ast.Return(value=None):
                return ["return;"]
            case ast.Return(value=value) if value is not None:
                text, ctype = self.expression(value)
                self.result = _unified(self.result, ctype)
                return [f"return {text};"]
            case ast.Assign(targets=[ast.Tuple(elts=targets)], value=ast.Tuple(elts=values)):
                return self.together(targets, values)
            case ast.Assign(targets=targets, value=value):
                text, ctype = self.expression(value)
                return [self.assignment(target, text, ctype) for target in targets]
            case ast.AugAssign(target=target, op=op, value=value):
                old = ast.copy_location(ast.BinOp(left=_as_load(target), op=op, right=value), node)
                text, ctype = self.expression(old)
                return [self.assignment(target, text, ctype)]
            case ast.If(test=test, body=body, orelse=orelse):
                lines = [f"if ({self.truth(test)}) {{", *self.block(body)]
                if orelse:
                    lines += ["} else {", *self.block(orelse)]
                return [*lines, "}"]
            case ast.While(test=test, body=body, orelse=[]):
                return [f"while ({self.truth(test)}) {{", *self.block(body), "}"]
            case ast.For(target=ast.Name(id=name), iter=ast.Call(func=ast.Name(id="range"), args=bounds), body=body):
                return self.loop(name, bounds, body)
            case ast.Break():
                return ["break;"]
            case ast.Continue():
                return ["continue;"]
        raise NotTranslatableError(f"{self.name}: {ast.unparse(node)}")

    def loop(self, name: str, bounds: list[ast.expr], body: list[ast.stmt]) -> list[str]:
        texts = [self.expression(bound)[0] for bound in bounds]
        start, stop = ("0", texts[0]) if len(texts) == 1 else texts[:2]
        step = texts[2] if len(texts) == 3 else "1"
        if step.startswith("-"):
            raise NotTranslatableError(f"{self.name}: range that counts down")
        self.types[name] = INT
        counter, last = self.temporary(), self.temporary()
        return [
            f"for (int64_t {counter} = {start}, {last} = {stop}; {counter} < {last}; {counter} += {step}) {{",
            f"{name} = {counter};",
            *self.block(body),
            "}",
        ]

    def together(self, targets: list[ast.expr], values: list[ast.expr]) -> list[str]:
        lines, names = [], []
        for value in values:
            text, ctype = self.expression(value)
            names.append((self.temporary(), ctype))
            lines.append(f"{self.program.c(ctype)} {names[-1][0]} = {text};")
        lines += [self.assignment(t, n, c) for t, (n, c) in zip(targets, names, strict=True)]
        return ["{", *lines, "}"]

    def temporary(self) -> str:
        self.temporaries += 1
        return f"t{self.temporaries}_"

    def assignment(self, target: ast.expr, text: str, ctype: CType) -> str:
        if isinstance(target, ast.Name):
            self.types[target.id] = _unified(self.types.get(target.id), ctype)
            return f"{target.id} = {text};"
        return f"{self.place(target)[0]} = {text};"

    # --- expressions -----------------------------------------------------------------------------------------
    def place(self, node: ast.expr) -> tuple[str, CType]:
        """A field of a record or an element of an array, and the type it is stored with."""
        if isinstance(node, ast.Attribute):
            base, ctype = self.expression(node.value)
            return self.field(base, ctype, node.attr)
        if isinstance(node, ast.Subscript):
            if isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str):
                base, ctype = self.expression(node.value)
                return self.field(base, ctype, node.slice.value)
            return self.element(node)
        raise NotTranslatableError(f"{self.name}: {ast.unparse(node)}")

    def field(self, base: str, ctype: CType, name: str) -> tuple[str, CType]:
        if not isinstance(ctype, Record):
            raise NotTranslatableError(f"{self.name}: field {name} of {ctype}")
        self.program.struct(ctype.dtype)
        kind = ctype.dtype.fields[name][0]  # type: ignore[index]
        if kind.subdtype:
            raise NotTranslatableError(f"{self.name}: array {name} inside a record")
        return f"{base}->{name}", _scalar(kind)

    def element(self, node: ast.Subscript) -> tuple[str, CType]:
        base, ctype = self.expression(node.value)
        if not isinstance(ctype, Array):
            raise NotTranslatableError(f"{self.name}: {ast.unparse(node)}")
        indices = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if len(indices) != ctype.ndim:
            raise NotTranslatableError(f"{self.name}: a part of an array in {ast.unparse(node)}")
        texts = [self.expression(index)[0] for index in indices]
        flat = texts[0] if len(texts) == 1 else f"({texts[0]}) * {base}.shape[1] + ({texts[1]})"
        if ctype.dtype.names:
            return f"(&{base}.data[{flat}])", Record(ctype.dtype)
        return f"{base}.data[{flat}]", _scalar(ctype.dtype)

    def truth(self, node: ast.expr) -> str:
        text, ctype = self.expression(node)
        return text if ctype == BOOL else f"({text} != 0)"

    def expression(self, node: ast.expr) -> tuple[str, CType]:
        match node:
            case ast.Constant(value=value):
                return self.constant(value)
            case ast.Name(id=name) if name in self.types:
                return name, self.types[name]
            case ast.Name(id=name):
                return self.constant(self.outer(name))
            case ast.Attribute(value=ast.Attribute(value=inner, attr="shape")):
                raise NotTranslatableError(ast.unparse(inner))
            case ast.Attribute():
                found = self.static(node)
                if found is not None:
                    return self.constant(found)
                text, ctype = self.place(node)
                return text, _widened(ctype)
            case ast.Subscript(value=ast.Attribute(value=array, attr="shape"), slice=ast.Constant(value=axis)):
                return f"{self.expression(array)[0]}.shape[{axis}]", INT
            case ast.Subscript():
                text, ctype = self.place(node)
                return text, _widened(ctype)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return f"(!{self.truth(operand)})", BOOL
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                text, ctype = self.expression(operand)
                return f"(-{text})", ctype
            case ast.BoolOp(op=op, values=values):
                sign = " && " if isinstance(op, ast.And) else " || "
                return f"({sign.join(self.truth(value) for value in values)})", BOOL
            case ast.Compare(left=left, ops=ops, comparators=right):
                return self.comparison(left, ops, right)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                (a, ta), (b, tb) = self.expression(body), self.expression(orelse)
                return f"({self.truth(test)} ? {a} : {b})", _unified(ta, tb)
            case ast.BinOp(left=left, op=op, right=right_side):
                return self.arithmetic(op, self.expression(left), self.expression(right_side))
            case ast.Call():
                return self.call(node)
        raise NotTranslatableError(f"{self.name}: {ast.unparse(node)}")

    def outer(self, name: str) -> Any:
        if name not in self.globals:
            raise NotTranslatableError(f"{self.name}: name {name}")
        return self.globals[name]

    def static(self, node: ast.expr) -> Any:
        """The value of `module.NAME` or `Enum.NAME`; None if the expression is something else."""
        if isinstance(node, ast.Name) and node.id not in self.types:
            return self.globals.get(node.id)
        if isinstance(node, ast.Attribute):
            base = self.static(node.value)
            if isinstance(base, ModuleType | type):
                return getattr(base, node.attr)
        return None

    def constant(self, value: Any) -> tuple[str, CType]:
        if isinstance(value, np.ndarray):
            return self.program.table(value), Array(value.dtype, value.ndim)
        if isinstance(value, bool | np.bool_):
            return str(int(value)), BOOL
        if isinstance(value, np.uint64):
            return f"UINT64_C({int(value)})", UINT
        if isinstance(value, int | IntEnum | np.integer):
            return f"INT64_C({int(value)})" if value >= 0 else f"(-INT64_C({-int(value)}))", INT
        if isinstance(value, float):
            if math.isnan(value):
                return "NAN", FLOAT
            if math.isinf(value):
                return ("INFINITY" if value > 0 else "(-INFINITY)"), FLOAT
            return (repr(value) if value >= 0 else f"({value!r})"), FLOAT
        raise NotTranslatableError(f"{self.name}: constant {value!r}")

    def comparison(self, left: ast.expr, ops: list[ast.cmpop], right: list[ast.expr]) -> tuple[str, CType]:
        signs = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="}
        parts = []
        for a, op, b in zip([left, *right[:-1]], ops, right, strict=True):
            (ta, _), (tb, _) = self.expression(a), self.expression(b)
            parts.append(f"{ta} {signs[type(op)]} {tb}")
        return f"({' && '.join(parts)})", BOOL

    def arithmetic(self, op: ast.operator, left: tuple[str, CType], right: tuple[str, CType]) -> tuple[str, CType]:
        (a, ta), (b, tb) = left, right
        ctype = _unified(ta, tb)
        if ctype == BOOL:
            ctype = INT
        signs = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.BitAnd: "&", ast.BitOr: "|", ast.BitXor: "^",
                 ast.LShift: "<<", ast.RShift: ">>"}  # fmt: skip
        if type(op) in signs:
            return f"({a} {signs[type(op)]} {b})", ctype
        if isinstance(op, ast.Div):
            return f"((double){a} / (double){b})", FLOAT
        if isinstance(op, ast.FloorDiv):
            return (f"floor({a} / {b})", FLOAT) if ctype == FLOAT else (f"floor_div({a}, {b})", INT)
        if isinstance(op, ast.Mod) and ctype == INT:
            return f"floor_mod({a}, {b})", INT
        raise NotTranslatableError(f"{self.name}: operator {type(op).__name__} on {ctype}")

    def call(self, node: ast.Call) -> tuple[str, CType]:
        arguments = [self.expression(argument) for argument in node.args]
        if node.keywords:
            raise NotTranslatableError(f"{self.name}: {ast.unparse(node)}")
        name = ast.unparse(node.func)
        if name in ("math.floor", "math.ceil"):
            return f"(int64_t){name[5:]}({arguments[0][0]})", INT
        if name == "np.floor":
            return f"floor({arguments[0][0]})", FLOAT
        if name in ("math.sqrt", "math.exp", "math.log", "math.cos", "math.sin", "math.tan", "math.atan"):
            return f"{name[5:]}((double){arguments[0][0]})", FLOAT
        if name in ("math.isnan", "math.isfinite"):
            return f"({name[5:]}({arguments[0][0]}) != 0)", BOOL
        if name == "abs":
            text, ctype = arguments[0]
            return (f"fabs({text})", FLOAT) if ctype == FLOAT else (f"({text} < 0 ? -({text}) : {text})", INT)
        if name in ("min", "max") and len(arguments) == 2:
            ctype = _unified(arguments[0][1], arguments[1][1])
            return f"{name}_{'d' if ctype == FLOAT else 'i'}({arguments[0][0]}, {arguments[1][0]})", ctype
        casts = {"float": FLOAT, "int": INT, "np.uint64": UINT, "np.int64": INT, "np.float64": FLOAT}
        if name in casts:
            return f"(({casts[name]}){arguments[0][0]})", casts[name]
        if name == "bool":
            return f"({arguments[0][0]} != 0)", BOOL
        function = self.static(node.func)
        if not callable(function):
            raise NotTranslatableError(f"{self.name}: {name}")
        c_name, result = self.program.function(function, tuple(ctype for _, ctype in arguments))
        return f"{c_name}({', '.join(text for text, _ in arguments)})", result


def _as_load(target: ast.expr) -> ast.expr:
    return ast.parse(ast.unparse(target), mode="eval").body


def type_of(value: Any) -> CType:
    """C type of an argument as the plant hands it to the kernel."""
    if isinstance(value, np.record | np.void):
        return Record(value.dtype if value.dtype.type is np.void else np.dtype((np.void, value.dtype)))
    if isinstance(value, np.ndarray):
        return Array(value.dtype, value.ndim)
    if isinstance(value, np.uint64):
        return UINT
    return FLOAT if isinstance(value, float) else INT


def translate(function: Any, arguments: Sequence[Any]) -> str:
    """C source whose ``entry(pointers, shapes, scalars)`` does what ``function(*arguments)`` does."""
    program = Program()
    types = tuple(type_of(argument) for argument in arguments)
    for ctype in types:
        program.c(ctype)
    name, _ = program.function(function, types)
    calls, k_pointer, k_scalar = [], 0, 0
    for ctype in types:
        if isinstance(ctype, Record):
            calls.append(f"({program.c(ctype)})pointers[{k_pointer}]")
            k_pointer += 1
        elif isinstance(ctype, Array):
            at = f"{{ shapes[{2 * k_pointer}], shapes[{2 * k_pointer + 1}] }}"
            calls.append(f"({program.c(ctype)}){{ pointers[{k_pointer}], {at} }}")
            k_pointer += 1
        else:
            calls.append(f"scalars[{k_scalar}]")
            k_scalar += 1
    program.bodies.append(
        "void entry(void **pointers, const int64_t *shapes, const int64_t *scalars) {\n"
        f"  {name}({', '.join(calls)});\n}}"
    )
    return program.source()


class CKernel:
    """A stand-in for the compiled Python kernel: translated at the first call, then called through ctypes."""

    def __init__(self, function: Any, folder: Path, optimise: Sequence[str] = ("-O2",)) -> None:
        self._function = function
        self._optimise = optimise
        self._folder = folder
        self._entry: Any = None
        self.source = folder / "kernel.c"

    def __call__(self, *arguments: Any) -> None:
        if self._entry is None:
            self._build(arguments)
        pointers, shapes, scalars = self._pack(arguments)
        self._entry(pointers, shapes, scalars)

    def _build(self, arguments: Sequence[Any]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self.source.write_text(translate(self._function, arguments), encoding="utf-8")
        library = self._folder / f"kernel{''.join(self._optimise)}.so"
        subprocess.run(["gcc", *self._optimise, *CFLAGS, str(self.source), "-o", str(library), "-lm"], check=True)
        self._entry = ctypes.CDLL(str(library)).entry

    def _pack(self, arguments: Sequence[Any]) -> tuple[Any, Any, Any]:
        held = [a for a in arguments if isinstance(a, np.ndarray | np.void)]
        scalars = [int(a) for a in arguments if not isinstance(a, np.ndarray | np.void)]
        shapes: list[int] = []
        for a in held:
            if isinstance(a, np.ndarray) and not a.flags.c_contiguous:
                raise NotTranslatableError("an array that is not contiguous")
            shape = [*(a.shape if isinstance(a, np.ndarray) else ()), 0, 0]
            shapes += shape[:2]
        addresses = [a.__array_interface__["data"][0] for a in held]
        return (
            (ctypes.c_void_p * len(addresses))(*addresses),
            (ctypes.c_int64 * len(shapes))(*shapes),
            (ctypes.c_int64 * len(scalars))(*scalars),
        )
