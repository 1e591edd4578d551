"""`make words`: the texts of the code into the catalogues that gettext reads, by Babel.

The code says everything in English. Each package has its other languages below `locale/`: a .po to write in, and
the .mo that Babel compiles of it, which lies in git and in the wheels. New texts come with an empty msgstr, and what
the code no longer says goes. Sorted, without dates and places: a catalogue changes when its texts do.
"""

from __future__ import annotations

import ast
import inspect
import io
import re
import string
import sys
from collections.abc import Iterator
from pathlib import Path

from babel.messages import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

from producer_client.contract import Code, StatsReply
from producer_client.language import CODE, Language
from worker.commands.index import FIGURES
from worker.joined import join
from worker.words import SENTENCE

ROOT = Path(__file__).parent
PACKAGES = ("producer_client", "worker", "demo")
LANGUAGES = tuple(language for language in Language if language is not Language.EN)
#: Calls whose first argument is a text.
CALLS = {"say": None, "to_say": None}
#: Where they are looked for; `pip wheel` leaves copies of the code in build/.
METHODS = [("build/**", "ignore"), ("**.py", "python")]
#: What takes sentences in English that people may read in another language: errors, refusals, answers.
SPEAKERS = {
    "BadRequest", "Declined", "PhotoRefused", "TryAgain", "TimedOut", "Refused", "failed", "Permanent", "PhotoRefusal",
    "Stale", "Untrusted",
    "EncoderUnavailable", "BadGeneration", "BadVector", "NotThatPickle", "Transient", "ValueError", "RuntimeError",
    "UnknownFile", "Unprepared", "Unreachable", "_refuse", "abstain", "Answer", "Note", "Fault", "TooFew",
    "Verdict", "not_examined", "HeldBack", "DecoderFailed",
}  # fmt: skip
#: Functions and variables whose texts are such sentences, or parts of them.
NAMED_SENTENCES = {
    "_sentence", "_why", "_judge", "_uncounted", "_untrusted", "_why_untrusted", "_lacking", "_beside", "_named", "why",
    "message",
    "only", "none_near", "too_deep", "wanted", "remedy", "WANTED", "BY_A_PERSON", "_SAID", "_HUNG_UP",
    "_NO_HOST", "_SILENT", "_REFUSED", "MEASURES", "GAINED", "again",
}  # fmt: skip
#: What Linux says of files, disks and connections (errno(3)), as glibc words it.
SYSTEM = (
    "Operation not permitted",
    "No such file or directory",
    "Input/output error",
    "No such device or address",
    "Resource temporarily unavailable",
    "Cannot allocate memory",
    "Permission denied",
    "Device or resource busy",
    "File exists",
    "Invalid cross-device link",
    "No such device",
    "Not a directory",
    "Is a directory",
    "Invalid argument",
    "Too many open files in system",
    "Too many open files",
    "File too large",
    "No space left on device",
    "Illegal seek",
    "Read-only file system",
    "Too many links",
    "Broken pipe",
    "File name too long",
    "Directory not empty",
    "Too many levels of symbolic links",
    "Invalid or incomplete multibyte or wide character",
    "Operation not supported",
    "Address already in use",
    "Cannot assign requested address",
    "Network is unreachable",
    "Connection reset by peer",
    "Transport endpoint is not connected",
    "Connection timed out",
    "Connection refused",
    "Host is down",
    "No route to host",
    "Stale file handle",
    "Structure needs cleaning",
    "Remote I/O error",
    "Disk quota exceeded",
    "Required key not available",
    "Name or service not known",
    "Temporary failure in name resolution",
)
#: Such sentences of other packages, and of the operating system.
OTHERS = (
    "Missing argument {argument}.",
    "Missing command.",
    "No such command {name}.",
    "No such command {name}. Did you mean {other}?",
    "No such option: {option}",
    "No such option: {option} (Possible options: {options})",
    "Got unexpected extra argument(s) ({arguments})",
    "Option {option} requires an argument.",
    "Option {option} does not take a value.",
    "Invalid value for {name}: {fault}",
    "path {path} does not exist.",
    "path {path} is not readable.",
    "{value} is not one of {values}.",
    "[Errno {number}] {fault}: {path}",
    "[Errno {number}] {fault}",
    "`sightline {name}` ended with code {code}",
    "a number",
    "a whole number",
    "a list",
    "an object",
    "a boolean",
    'connection to server at "{host}", port {port} failed: {fault}',
    'connection to server at "{host}" ({address}), port {port} failed: {fault}',
    'connection to server on socket "{path}" failed: {fault}',
    'could not translate host name "{host}" to address: {fault}',
    'FATAL:  database "{name}" does not exist',
    'FATAL:  role "{name}" does not exist',
    'FATAL:  password authentication failed for user "{name}"',
    "FATAL:  the database system is starting up",
    "FATAL:  the database system is shutting down",
    "FATAL:  sorry, too many clients already",
    "fe_sendauth: no password supplied",
    "timeout expired",
    "server closed the connection unexpectedly",
    "terminating connection due to administrator command",
    "none of them",
    "none are set",
    *SYSTEM,
)
NOTE = "# After a change: `make words`. It takes in new texts of the code and compiles this page."
#: What of Babel's header is kept; the rest is dates and names.
HEADER = {"Language", "Plural-Forms", "MIME-Version", "Content-Type", "Content-Transfer-Encoding"}


class Undated(Catalog):
    def _get_mime_headers(self) -> list[tuple[str, str]]:
        return [(name, value) for name, value in super()._get_mime_headers() if name in HEADER]


def main() -> None:
    lacking: list[str] = []
    for package in PACKAGES:
        for language in LANGUAGES:
            path, words = po_file(package, language), catalogue(package, language)
            path.write_bytes(as_po(words))
            path.with_suffix(".mo").write_bytes(as_mo(words))
            lacking += [f"{path.relative_to(ROOT)} lacks: {text}" for text in unfinished(words)]
    sys.exit("\n".join(lacking) or 0)


def po_file(package: str, language: Language) -> Path:
    return ROOT / package / "locale" / language / "LC_MESSAGES" / "sightline.po"


def texts(package: str) -> Catalog:
    """What the code of a package says."""
    found = Catalog()
    for _, _, text, _, context in extract_from_dir(ROOT / package, METHODS, keywords=CALLS):
        found.add(text, context=context)
    for text in sentences(package):
        found.add(text, context=SENTENCE)
    if package == "worker":
        for text in _named_elsewhere():
            found.add(text)
    if package == "producer_client":
        for code in Code:
            found.add(code.value, context=CODE)
    return found


def sentences(package: str) -> set[str]:
    """What the code of a package says in English alone, with {names} where values are put in."""
    found = set(OTHERS) if package == "worker" else set()
    folder = ROOT / package
    for page in sorted(set(folder.rglob("*.py")) - set(folder.glob("build/**/*.py"))):
        for node in ast.walk(ast.parse(page.read_text())):
            for literal in said(node):
                text = template(literal)
                if text is not None and _has_words(text):
                    found.add(text)
    return found


def said(node: ast.AST) -> Iterator[ast.expr]:
    """The literals of a piece of code that are such sentences."""
    match node:
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in SPEAKERS:
            yield from node.args
            yield from (keyword.value for keyword in node.keywords if keyword.arg == "message")
        case ast.FunctionDef(name=name) if name in NAMED_SENTENCES:
            yield from (inner for inner in ast.walk(node) if isinstance(inner, ast.JoinedStr))
            returned = (inner.value for inner in ast.walk(node) if isinstance(inner, ast.Return) and inner.value)
            for value in returned:
                choices = (value.body, value.orelse) if isinstance(value, ast.IfExp) else (value,)
                yield from (choice for choice in choices if isinstance(choice, ast.Constant))
        case (
            ast.Assign(targets=[ast.Name(id=name)], value=value) | ast.AnnAssign(target=ast.Name(id=name), value=value)
        ):
            if name in NAMED_SENTENCES and value is not None:
                # Of a table of pairs, what stands last in each.
                rows = value.elts if isinstance(value, ast.Tuple) else [value]
                yield from (row.elts[-1] if isinstance(row, ast.Tuple) else row for row in rows)


def template(literal: ast.expr) -> str | None:
    """The text of a literal; of an f-string, its values by their names."""
    match literal:
        case ast.Constant(value=str(text)):
            return text.replace("{", "{{").replace("}", "}}")
        case ast.JoinedStr(values=parts):
            text, names = "", set[str]()
            for part in parts:
                if isinstance(part, ast.FormattedValue):
                    name = _name(part.value)
                    while name in names:
                        name += "_"
                    names.add(name)
                    text += f"{{{name}}}"
                elif isinstance(part, ast.Constant):
                    text += str(part.value).replace("{", "{{").replace("}", "}}")
            return text
    return None


def _name(value: ast.expr) -> str:
    match value:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name.strip("_")
        case ast.Call(args=[only, *_]) if not isinstance(only, ast.GeneratorExp):
            return _name(only)
        case ast.Subscript(value=inner) | ast.BinOp(left=inner) | ast.BoolOp(values=[inner, *_]):
            return _name(inner)
    return "value"


def _has_words(text: str) -> bool:
    """Not a name alone, nor values between commas."""
    own = "".join(words for words, *_ in string.Formatter().parse(text))
    return " " in text.strip() and len(re.findall("[a-z]{2,}", own)) > 0


def _named_elsewhere() -> Iterator[str]:
    """What the command line says by another name: commands by their docstrings, figures by their fields."""
    for command in join().registered_commands:
        yield inspect.cleandoc(getattr(command.callback, "__doc__", None) or "")
    for field in inspect.signature(StatsReply).parameters:
        if field not in FIGURES:
            yield field.replace("_", " ")


def catalogue(package: str, language: Language) -> Catalog:
    """What the code says, with as much of it in the language as its .po has."""
    words = Undated(language, header_comment=NOTE, fuzzy=False)
    path = po_file(package, language)
    if path.exists():
        with path.open("rb") as written:
            for message in read_po(written, language):
                if message.id:
                    words[message.id] = message
    words.update(texts(package), no_fuzzy_matching=True)
    return words


def unfinished(words: Catalog) -> list[str]:
    """Texts that nobody has put into the language yet, or that a tool has guessed."""
    return [str(message.id) for message in words if message.id and (message.fuzzy or not message.string)]


def as_po(words: Catalog) -> bytes:
    page = io.BytesIO()
    write_po(page, words, width=120, no_location=True, sort_output=True, ignore_obsolete=True)
    return page.getvalue()


def as_mo(words: Catalog) -> bytes:
    page = io.BytesIO()
    write_mo(page, words)
    return page.getvalue()


if __name__ == "__main__":
    main()
