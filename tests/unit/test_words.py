"""Everything that people read has its Russian, with the same fields and the same colours."""

from __future__ import annotations

import ast
import errno
import inspect
import os
import re
import string
from pathlib import Path

import pytest
from babel.messages import Catalog, Message
from babel.messages.pofile import read_po
from pydantic import ValidationError
from rich.text import Text

import translation
from producer_client.contract import Answer, Code, Reason, StatsReply
from producer_client.language import CODE, Language, explained
from worker.commands.index import FIGURES
from worker.invalid import fault
from worker.joined import join
from worker.settings import Settings
from worker.words import SENTENCE, in_language, reason, say, told


def texts_in_code(package: str) -> set[str]:
    """First arguments of say(...), literal or named just above, the commands' docstrings, the names of checks.

    Read without Babel, whose reader of Python takes calls inside others or inside f-strings for something else.
    """
    found: set[str] = set()
    if package == "worker":
        found |= {
            inspect.cleandoc(command.callback.__doc__ or "")
            for command in join().registered_commands
            if command.callback
        }
        found |= {name.replace("_", " ") for name in inspect.signature(StatsReply).parameters if name not in FIGURES}
    folder = translation.ROOT / package
    for page in set(folder.rglob("*.py")) - set(folder.glob("build/**/*.py")):
        tree = ast.parse(page.read_text())
        calls = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in translation.CALLS
        ]
        named = {
            target.id: node.value.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for call in calls:
            text = call.args[0]
            if isinstance(text, ast.Constant):
                found.add(str(text.value))
            elif isinstance(text, ast.Name) and text.id in named:
                found.add(str(named[text.id]))
        for node in ast.walk(tree) if calls else ():
            if isinstance(node, ast.Yield) and isinstance(node.value, ast.Tuple):
                name = node.value.elts[0]
                found |= {str(name.value)} if isinstance(name, ast.Constant) else set()
    return found


def written(package: str) -> Catalog:
    with translation.po_file(package, Language.RU).open("rb") as page:
        return read_po(page, Language.RU)


def fields(text: str) -> list[tuple[str | None, str | None, str | None]]:
    return sorted((name, spec, how) for _, name, spec, how in string.Formatter().parse(text) if name is not None)


ERRORS = translation.SPEAKERS - {"Answer", "Refused", "failed"}
MESSAGES = [message for package in translation.PACKAGES for message in written(package) if message.id]


@pytest.mark.parametrize("package", translation.PACKAGES)
def test_every_text_has_its_russian_and_none_is_left_over(package: str) -> None:
    messages = [message for message in written(package) if message.id]

    assert texts_in_code(package) == {message.id for message in messages if message.context is None}
    assert {message.id for message in messages if message.context == CODE} == (
        set(Code) if package == "producer_client" else set()
    )
    assert {message.id for message in messages if message.context == SENTENCE} == translation.sentences(package)
    assert translation.unfinished(written(package)) == []


@pytest.mark.parametrize("package", translation.PACKAGES)
def test_make_words_has_nothing_left_to_do(package: str) -> None:
    po = translation.po_file(package, Language.RU)

    words = translation.catalogue(package, Language.RU)

    assert po.read_bytes() == translation.as_po(words)
    assert po.with_suffix(".mo").read_bytes() == translation.as_mo(words)


def test_a_new_text_comes_without_its_russian_and_one_that_is_gone_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shop").mkdir()
    code = tmp_path / "shop" / "counter.py"
    monkeypatch.setattr(translation, "ROOT", tmp_path)
    monkeypatch.setattr(translation, "PACKAGES", ("shop",))
    po = translation.po_file("shop", Language.RU)
    po.parent.mkdir(parents=True)
    po.write_text('msgid "open"\nmsgstr "открыто"\n\nmsgid "sold"\nmsgstr "продано"\n')
    code.write_text('say("open")\nsay("closed")\n')

    with pytest.raises(SystemExit, match=r"sightline\.po lacks: closed"):
        translation.main()

    now = read_po(po.read_bytes().decode().splitlines(keepends=True))
    assert {message.id: message.string for message in now if message.id} == {"open": "открыто", "closed": ""}


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.id)
def test_a_text_has_the_same_fields_and_colours_in_both_languages(message: Message) -> None:
    english, russian = str(message.id), str(message.string)

    assert fields(russian) == fields(english)
    assert sorted(re.findall(r"\[[a-z /]*\]", russian)) == sorted(re.findall(r"\[[a-z /]*\]", english))
    assert Text.from_markup(russian).plain


@pytest.mark.parametrize("message", [one for one in MESSAGES if "://" in str(one.id)], ids=lambda message: message.id)
def test_an_address_for_example_is_the_same_in_both_languages(message: Message) -> None:
    """Sentences that have one filled in say it so, too."""
    english, russian = (re.findall(r"\S*://[^\s`,;)]*", str(text)) for text in (message.id, message.string))

    assert russian == english


def test_what_the_system_says_of_files_disks_and_connections_is_in_the_readers_language(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    numbers = [
        errno.EPERM, errno.ENOENT, errno.EIO, errno.ENXIO, errno.EAGAIN, errno.ENOMEM, errno.EACCES, errno.EBUSY,
        errno.EEXIST, errno.EXDEV, errno.ENODEV, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.ENFILE, errno.EMFILE,
        errno.EFBIG, errno.ENOSPC, errno.ESPIPE, errno.EROFS, errno.EMLINK, errno.EPIPE, errno.ENAMETOOLONG,
        errno.ENOTEMPTY, errno.ELOOP, errno.EILSEQ, errno.EOPNOTSUPP, errno.EADDRINUSE, errno.EADDRNOTAVAIL,
        errno.ENETUNREACH, errno.ECONNRESET, errno.ENOTCONN, errno.ETIMEDOUT, errno.ECONNREFUSED, errno.EHOSTDOWN,
        errno.EHOSTUNREACH, errno.ESTALE, errno.EUCLEAN, errno.EREMOTEIO, errno.EDQUOT, errno.ENOKEY,
    ]  # fmt: skip
    monkeypatch.setenv("SIGHTLINE_LANG", "ru")

    said = [reason(OSError(number, os.strerror(number), "/x")) for number in numbers]
    whole = [in_language(str(OSError(number, os.strerror(number), *path))) for number in numbers for path in ((), "/")]

    assert [text for text in said + whole if re.search("[A-Za-z]", text)] == []
    monkeypatch.setenv("SIGHTLINE_LANG", "en")
    assert [reason(OSError(number, os.strerror(number), "/x")) for number in numbers] == list(map(os.strerror, numbers))
    assert reason(OSError("of our own")) == "of our own"


def test_no_sentence_that_is_said_at_once_takes_the_systems_english() -> None:
    """In errors it may stand: they are in English to the last word, and known again."""
    found = []
    for page in (translation.ROOT / "worker").rglob("*.py"):
        for call in ast.walk(ast.parse(page.read_text())):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "say":
                values = [inner for keyword in call.keywords for inner in ast.walk(keyword.value)]
                found += [
                    page.name for value in values if isinstance(value, ast.Attribute) and value.attr == "strerror"
                ]

    assert found == []


@pytest.mark.parametrize(
    "said",
    [
        'connection to server at "127.0.0.1", port 1 failed: Connection refused',
        'connection to server at "db" (10.0.0.1), port 5432 failed: FATAL:  role "x" does not exist',
        'connection to server on socket "/x/.s.PGSQL.5432" failed: No such file or directory',
        'could not translate host name "db" to address: Name or service not known',
    ],
)
def test_what_postgres_says_of_a_connection_is_in_the_readers_language(
    said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGHTLINE_LANG", "ru")

    words = re.findall("[A-Za-z]{3,}", re.sub('"[^"]*"', "", told(Code.UNAVAILABLE, f"Postgres: {said}")))

    assert set(words) <= {"Postgres"}


def test_the_language_is_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_LANG", "ru_RU.UTF-8")
    russian = say("refused: {count}", count=3), told(Code.NOT_AN_IMAGE, "sha?"), say("no such text {a}", a=1)
    monkeypatch.setenv("SIGHTLINE_LANG", "en")
    english = say("refused: {count}", count=3), told(Code.NOT_AN_IMAGE, "sha?")

    assert russian == ("отклонено: 3", "это не фото: sha?", "no such text 1")
    assert english == ("refused: 3", "sha?")


def test_the_language_is_not_that_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SIGHTLINE_LANG", raising=False)
    for name in ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.setenv(name, "ru_RU.UTF-8")

    assert say("stopped") == "stopped"


def test_an_answer_is_explained_in_the_language_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_LANG", "ru")
    answer = Answer(Answer.ABSTAINED, reason=Reason.NOTHING_SIMILAR)

    assert explained(answer) == "ничего похожего не известно"
    assert explained(answer, Language.EN) == "nothing known looks like it"


#: A sentence as it is said somewhere, and its Russian.
SENTENCES = {
    "/photos/a b.jpg is outside the allowed folders (/photos, /more; SIGHTLINE_PHOTO_ROOTS)": (
        "/photos/a b.jpg вне разрешённых папок (/photos, /more; SIGHTLINE_PHOTO_ROOTS)"
    ),
    "/photos/1.jpg cannot be reached on the worker: No such file or directory": (
        "воркер не может прочитать /photos/1.jpg: нет такого файла или папки"
    ),
    "similar photos are known, but none with coordinates to trust (the file is gone: 3; derived by a detector: 1)": (
        "похожие фото известны, но координатам ни одного нельзя верить (файл пропал: 3; определено детектором: 1)"
    ),
    "2 trusted photos agree within 11 m (not counted, copies: photo 5; of one burst: photo 8)": (
        "надёжные фото сходятся в пределах 11 м: 2 (не считаются: копии: фото 5; из одной серии: фото 8)"
    ),
    "2 trusted photos agree within 11 m (not counted, copies: photo 5; copies in different places: photos 6, 7)": (
        "надёжные фото сходятся в пределах 11 м: 2 (не считаются: копии: фото 5; копии в разных местах: фото 6, 7)"
    ),
    "Invalid value for 'NUMBER': it must be a whole number, not 'x'": "'NUMBER': нужно целое число, а не 'x'",
    "lat must be a number, not nan": "lat: нужно число, а не nan",
    "m.csv, line 3: latitude 95, longitude 3: latitude runs from -90 to 90 and longitude from -180 to 180 degrees": (
        "m.csv, строка 3: широта 95, долгота 3: широта бывает от -90 до 90, а долгота от -180 до 180 градусов"
    ),
    "photo 81 has no file_path": "у фото 81 нет file_path",
    "photo 81": "фото 81",
    "search by one of photo, text, vector; got photo, text": (
        "искать можно по одному из photo, text, vector; дано: photo, text"
    ),
    "[Errno 2] No such file or directory: '/m.csv'": "'/m.csv': нет такого файла или папки (ошибка 2)",
}


@pytest.mark.parametrize(("english", "russian"), SENTENCES.items())
def test_a_sentence_that_was_made_in_english_is_known_again_with_its_values(
    english: str, russian: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGHTLINE_LANG", "ru")
    assert in_language(english) == russian
    assert told(Code.NOT_FOUND, english) == russian

    monkeypatch.setenv("SIGHTLINE_LANG", "en")
    assert in_language(english) == english
    assert told(Code.NOT_FOUND, english) == english


#: Values that are wrong for some settings.
WRONG = ("x", "", "-1", "1.5", "5", "1e400", "nan", "9" * 5000, "a b", "a=b", "a\0b", "http://x:secret@y", "é")


@pytest.mark.parametrize("name", Settings.model_fields)
def test_whatever_is_wrong_with_a_setting_is_said_in_our_words_and_in_russian(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGHTLINE_LANG", "ru")
    for value in WRONG:
        try:
            Settings.model_validate({name: value})
        except ValidationError as exc:
            for error in exc.errors():
                said = fault(error)
                assert not re.search("Input should|Value error|should match|[Uu]nable to", said)
                assert "secret" not in said or not name.endswith(("_url", "_backend"))
                assert len(said) < 1000
                # What a validator of ours repeats may be anything.
                assert re.search("[а-я]", in_language(said)), said


@pytest.mark.parametrize(
    "kind",
    ["int_from_float", "int_type", "float_type", "finite_number", "bool_type", "greater_than", "less_than", "missing"],
)
def test_a_fault_that_no_setting_has_yet_is_said_in_our_words_too(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_LANG", "ru")
    said = fault({"type": kind, "loc": ("x",), "msg": "Input should be X", "input": "a\\b", "ctx": {"gt": 1, "lt": 1}})

    assert "X" not in said
    assert kind == "missing" or said.endswith(", not 'a\\b'")
    assert re.search("[а-я]", in_language(said))


def test_every_setting_that_has_a_form_says_which() -> None:
    formed = [
        name
        for name, field in Settings.model_fields.items()
        if any(getattr(of, "pattern", None) is not None for of in field.metadata)
    ]
    assert len(formed) >= 4
    for name in formed:
        with pytest.raises(ValidationError) as caught:
            Settings.model_validate({name: " ?"})
        (error,) = caught.value.errors()
        assert fault(error).startswith("it must be "), name
        assert fault(error).endswith(", not ' ?'")


def test_what_nobody_has_put_into_the_language_comes_after_what_its_code_means(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_LANG", "ru")

    assert in_language("odd: {0}") == "odd: {0}"
    assert told(Code.NOT_FOUND, "odd: {0}").endswith(": odd: {0}")


#: What errors say that is made elsewhere: by another error, by `say`, by functions whose texts are found, by processes.
PASSED_ON = re.compile(r"\.message|say\(|str\(exc\)|last_words\(|" + "|".join(translation.NAMED_SENTENCES))


def calls_a_sayer(call: ast.Call, package: str) -> bool:
    """Whether what an error says is a function's that has it of `say`."""
    asked = {node.func.id for node in ast.walk(call) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    return any(
        isinstance(node, ast.FunctionDef) and node.name in asked and "return say(" in ast.unparse(node)
        for page in (translation.ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(page.read_text()))
    )


def test_every_sentence_of_an_error_is_one_that_can_be_put_into_a_language() -> None:
    """A sentence that is put together before it is raised would be shown in English: write it into the call."""
    lost = []
    for package in translation.PACKAGES:
        folder = translation.ROOT / package
        for page in sorted(set(folder.rglob("*.py")) - set(folder.glob("build/**/*.py"))):
            for call in ast.walk(ast.parse(page.read_text())):
                if not isinstance(call, ast.Call) or ast.unparse(call.func).rpartition(".")[2] not in ERRORS:
                    continue
                found = any(" " in (translation.template(literal) or "") for literal in translation.said(call))
                if not (found or PASSED_ON.search(ast.unparse(call)) or calls_a_sayer(call, package)):
                    lost.append(f"{page.name}:{call.lineno}: {ast.unparse(call)}")
    assert lost == []
