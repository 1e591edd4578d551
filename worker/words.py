"""What people read on the command line, by SIGHTLINE_LANG: the code has the English, this page its Russian.

A text without a Russian one is shown in English; tests/unit/test_words.py finds it. Codes and JSON keys never change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from producer_client.contract import Code
from producer_client.language import Language


def say(english: str, **fields: Any) -> str:
    """The text in the language that is set, its {fields} filled in."""
    text = RUSSIAN.get(english, english) if Language.chosen() is Language.RU else english
    return text.format(**fields) if fields else text


def why(code: Code) -> str:
    """What a code means, to be put before the details, which are in English."""
    return f"{CODES[code]}: " if Language.chosen() is Language.RU else ""


CODES: Mapping[Code, str] = {
    Code.BAD_REQUEST: "неверный запрос",
    Code.UNKNOWN_FIELD: "неизвестное поле",
    Code.UNKNOWN_VERSION: "неизвестная версия сообщения",
    Code.BAD_COORDINATES: "невозможные координаты",
    Code.BAD_VECTOR: "непригодный вектор",
    Code.NO_TEXT_ENCODER: "эта модель не понимает текста",
    Code.NOT_FOUND: "файл не найден",
    Code.NOT_A_FILE: "это не файл",
    Code.OUTSIDE_ROOTS: "файл вне разрешённых папок",
    Code.URL_NOT_ALLOWED: "этот адрес не разрешён",
    Code.EMPTY_FILE: "файл пуст",
    Code.TOO_LARGE: "файл слишком велик",
    Code.TOO_MANY_PIXELS: "слишком много пикселей",
    Code.TOO_SMALL: "изображение слишком мало",
    Code.TOO_THIN: "изображение слишком узкое",
    Code.NOT_AN_IMAGE: "это не фото",
    Code.DAMAGED_IMAGE: "файл фото повреждён",
    Code.UNKNOWN_PHOTO: "такого фото нет в таблице",
    Code.ROW_REJECTED: "база не приняла строку",
    Code.QUARANTINED: "фото отложено: на нём падал воркер",
    Code.MODEL_MISMATCH: "вектор другой модели",
    Code.ENCODER_UNAVAILABLE: "модель не загрузить",
    Code.NOT_READY: "сервис не готов",
    Code.STALE: "индекс ещё не догнал запись, повторите",
    Code.ALREADY_RUNNING: "уже выполняется",
    Code.RECALL_TOO_LOW: "полнота нового индекса слишком мала",
    Code.OVERLOADED: "слишком много запросов, повторите",
    Code.UNAVAILABLE: "сейчас недоступно, повторите",
    Code.TIMED_OUT: "ответ не пришёл вовремя",
    Code.INTERNAL: "внутренняя ошибка",
}

RUSSIAN: Mapping[str, str] = {
    # -- help
    "Where was this photo taken, judging by the photos we already know?": (
        "Где снято это фото, судя по фото, которые мы уже знаем?"
    ),
    "Print one JSON object instead of a table.": "Вывести один объект JSON вместо таблицы.",
    "Seconds to wait for a reply.": "Сколько секунд ждать ответа.",
    "serve: photos and questions. index: rebuilds.": "serve: фото и вопросы. index: перестроение индекса.",
    "Queues to serve, with commas, instead of the role's own.": "Очереди через запятую вместо очередей роли.",
    "Files, folders, or a manifest.csv with file, lat, lon.": "Файлы, папки или manifest.csv с file, lat, lon.",
    "Latitude of a single photo, degrees.": "Широта одного фото в градусах.",
    "Longitude of a single photo, degrees.": "Долгота одного фото в градусах.",
    "How given coordinates came to be.": "Откуда взяты указанные координаты.",
    "embeddings.pkl of the system before.": "embeddings.pkl прежней системы.",
    "Folder that relative paths in it start from.": "Папка, от которой считаются относительные пути в нём.",
    "What coordinates count as of which it is not said how they came to be.": (
        "Чем считать координаты, о происхождении которых ничего не сказано."
    ),
    "Look and report; change nothing.": "Посмотреть и доложить, ничего не меняя.",
    "A photo file.": "Файл фото.",
    "Words instead of a photo.": "Слова вместо фото.",
    "A known photo instead of a file.": "Известное фото вместо файла.",
    "Photos to show at the most.": "Сколько фото показать самое большее.",
    "Least cosine similarity; 0.75 unless given.": "Наименьшее косинусное сходство; без указания 0.75.",
    "LAT,LON,METRES: only photos in this circle.": "ШИРОТА,ДОЛГОТА,МЕТРЫ: только фото в этом круге.",
    "LAT,LON,METRES: only evidence in this circle.": "ШИРОТА,ДОЛГОТА,МЕТРЫ: свидетели только из этого круга.",
    "Ids of rows of the photos table.": "Номера строк таблицы фото.",
    "One that is kept; see `sightline generations`.": "Одно из сохранённых, см. `sightline generations`.",
    # -- commands
    "Run everything on this machine, with its own Postgres and Valkey, until Ctrl-C.": (
        "Запустить всё на этой машине, со своими Postgres и Valkey, до Ctrl-C."
    ),
    "Run one worker process. Start as many as you like, on as many machines.": (
        "Запустить один процесс воркера. Их может быть сколько угодно, на скольких угодно машинах."
    ),
    "Run the beat. Any number of them is safe: what is due is decided in Postgres.": (
        "Запустить beat. Их может быть сколько угодно: что пора делать, решает Postgres."
    ),
    "Bring the database to this release's schema.": "Привести базу к схеме этого выпуска.",
    "Add photos to the index. Without coordinates those of the EXIF tags are taken.": (
        "Добавить фото в индекс. Если координаты не указаны, берутся из EXIF."
    ),
    "Take over the photos of an old embeddings.pkl, which is read without running anything in it.\n\n"
    "Its coordinates are evidence only by a rule (SIGHTLINE_LOCATION_METHODS) or with --trust. "
    "Its vectors are kept if\n"
    "a sample, embedded again, shows that they are of the model that serves.": (
        "Перенять фото старого embeddings.pkl; при чтении ничего из него не выполняется.\n\n"
        "Его координаты служат свидетельством только по правилу (SIGHTLINE_LOCATION_METHODS) или с --trust. Векторы\n"
        "сохраняются, если заново посчитанная выборка показывает, что они от нынешней модели."
    ),
    "Index the photos of an existing table (SIGHTLINE_PHOTOS_TABLE) where they are.\n\n"
    "Photos that are indexed are passed over, so a run that was broken off goes on where it ended.": (
        "Проиндексировать фото существующей таблицы (SIGHTLINE_PHOTOS_TABLE) на месте.\n\n"
        "Уже проиндексированные пропускаются, поэтому прерванный проход продолжается с того же места."
    ),
    "Compute vectors: of photo files, to be had with --json, or with --missing of the photos table.\n\n"
    "With --missing photos are indexed as `backfill` does, without its report. A run that was broken off goes on "
    "where\n"
    "it ended.": (
        "Посчитать векторы: файлов фото (сами векторы даёт --json) или, с --missing, таблицы фото.\n\n"
        "С --missing фото индексируются так же, как в `backfill`, но без его отчёта. Прерванный проход продолжается с "
        "того же места."
    ),
    "Show photos that look like this one.": "Показать фото, похожие на это.",
    "Say where a photo was taken, or why that cannot be said.": (
        "Сказать, где снято фото, или почему этого сказать нельзя."
    ),
    "Rebuild the index now, and show how far it is.": "Перестроить индекс сейчас и показывать ход работы.",
    "Remove photos and erase what is stored of them, also from the index generations on disk.": (
        "Убрать фото и стереть всё, что о них хранится, в том числе из поколений индекса на диске."
    ),
    "Show the index generations that are kept, and which one serves.": (
        "Показать сохранённые поколения индекса и то, которое отвечает."
    ),
    "Let a kept generation serve again. No photo is lost: what came since is replayed from the log.": (
        "Вернуть сохранённое поколение. Фото не теряются: всё, что пришло позже, повторяется по журналу."
    ),
    "Show what the service knows: photos, index, model, last rebuild.": (
        "Показать, что знает сервис: фото, индекс, модель, последнее перестроение."
    ),
    "Check settings, broker, database, model, index and workers, and say what to do.": (
        "Проверить настройки, брокер, базу, модель, индекс и воркеры и сказать, что делать."
    ),
    # -- up, worker, migrate
    "starting: servers are up, the worker loads its model": "запуск: серверы работают, воркер загружает модель",
    "the worker loads its model, {seconds:.0f} s": "воркер загружает модель, {seconds:.0f} с",
    "[bold green]Sightline is up.[/] Broker [cyan]{broker}[/]; photos under [cyan]{roots}[/].\n"
    "In another terminal of this folder: [bold]sightline stats[/]. Ctrl-C stops it.": (
        "[bold green]Sightline работает.[/] Брокер [cyan]{broker}[/]; фото в [cyan]{roots}[/].\n"
        "В другом терминале этой папки: [bold]sightline stats[/]. Остановить: Ctrl-C."
    ),
    "no folder: set SIGHTLINE_PHOTO_ROOTS": "ни одной папки: задайте SIGHTLINE_PHOTO_ROOTS",
    "stopped": "остановлено",
    "--role is one of {roles}": "--role может быть: {roles}",
    "the database is at revision [cyan]{revision}[/]": "база на ревизии [cyan]{revision}[/]",
    "the settings are wrong: {wrong}": "неверные настройки: {wrong}",
    # -- add, import-legacy, backfill
    "no photo there": "там нет ни одного фото",
    "adding": "добавление",
    "importing": "перенос",
    "looking": "осмотр",
    "opening the files": "чтение файлов",
    "embedding": "вычисление векторов",
    "[green]{stored} embedded[/], {refused} refused": "[green]векторов посчитано: {stored}[/], отклонено: {refused}",
    "give photo files, or --missing": "укажите файлы фото или --missing",
    "Photo files.": "Файлы фото.",
    "Every photo of the table that lacks a vector of the model.": "Все фото таблицы, у которых нет вектора модели.",
    "[green]{stored} stored[/], {refused} refused": "[green]сохранено: {stored}[/], отклонено: {refused}",
    "[green]{stored} indexed[/], {refused} refused": "[green]проиндексировано: {stored}[/], отклонено: {refused}",
    "[green]{stored} imported[/], {refused} refused; {kept}": (
        "[green]перенесено: {stored}[/], отклонено: {refused}; {kept}"
    ),
    "vectors kept: {count}": "векторов сохранено: {count}",
    "all embedded again: its vectors are not of this model": "все векторы посчитаны заново: прежние от другой модели",
    "[yellow]nothing was changed[/]; photos to import: {count}": (
        "[yellow]ничего не изменено[/]; фото к переносу: {count}"
    ),
    "[yellow]nothing was changed[/]; photos not in the index yet: {count}": (
        "[yellow]ничего не изменено[/]; фото, которых ещё нет в индексе: {count}"
    ),
    "refused: {count}": "отклонено: {count}",
    "give both --lat and --lon, or neither": "укажите и --lat, и --lon, или ни того ни другого",
    "--lat and --lon are for a single photo; use a manifest.csv for many": (
        "--lat и --lon годятся для одного фото; для многих есть manifest.csv"
    ),
    "[yellow]left out[/] {name}: {why}": "[yellow]пропущено[/] {name}: {why}",
    "--near wants LAT,LON,METRES, not {text!r}": "--near ждёт ШИРОТА,ДОЛГОТА,МЕТРЫ, а не {text!r}",
    "in it": "всего",
    "with coordinates": "с координатами",
    "of these with a file": "из них с файлом",
    "of these to be trusted": "из них достоверных",
    "file missing": "файла нет",
    "file unreadable": "файл не читается",
    "not looked at": "не проверялось",
    "impossible coordinates": "невозможные координаты",
    "paths that occur again": "повторяющихся путей",
    "of these in contradiction": "из них противоречивых",
    "[yellow]at exactly {lat}, {lon}: a default, not a place[/]": (
        "[yellow]точно в {lat}, {lon}: значение по умолчанию, а не место[/]"
    ),
    "They count as `fallback` once the table says so:": "Они станут `fallback`, когда это скажет сама таблица:",
    "index statistics:": "статистика индекса:",
    "photos in it:": "фото в нём:",
    "generation on disk:": "поколение на диске:",
    "none yet: tonight's rebuild makes it, or `sightline rebuild` now": (
        "пока нет: появится ночью или сейчас по `sightline rebuild`"
    ),
    # -- search, locate
    "similar: {count}": "похожих: {count}",
    "[dim]generation {generation}, seq {seq}, {ms:.0f} ms[/]": (
        "[dim]поколение {generation}, seq {seq}, {ms:.0f} мс[/]"
    ),
    "[bold green]located[/] {lat:.6f}, {lon:.6f} within {radius_m:.0f} m, vote share {share:.0%} (not calibrated)": (
        "[bold green]найдено[/] {lat:.6f}, {lon:.6f} в пределах {radius_m:.0f} м, доля голосов {share:.0%} "
        "(не калибрована)"
    ),
    "[bold yellow]abstained[/] {reason}": "[bold yellow]нет ответа[/] {reason}",
    "evidence": "свидетели",
    # -- rebuild, generations, purge, rollback
    "rebuilding": "перестроение",
    "photos with coordinates:": "фото с координатами:",
    "valid files:": "годных файлов:",
    " ({count} refused)": " (отклонено: {count})",
    "indexed:": "в индексе:",
    "{count} ({now} embedded now)": "{count} (векторов посчитано сейчас: {now})",
    "dimension:": "размерность:",
    "model:": "модель:",
    "device:": "устройство:",
    "index:": "индекс:",
    "generation {number} at seq {seq}, {seconds:.1f} s": "поколение {number}, seq {seq}, {seconds:.1f} с",
    "was indexed": "было в индексе",
    "generations that may still hold it": "поколения, где оно ещё может быть",
    "erased from Postgres and from every answer now. Generations on disk go with the next rebuild, which the beat "
    "starts by itself; `sightline stats` shows purges pending until then": (
        "стёрто из Postgres и из всех ответов уже сейчас. Поколения на диске заменит ближайшее перестроение, которое "
        "beat начнёт сам; до тех пор `sightline stats` показывает незавершённые удаления"
    ),
    "[green]serving[/]": "[green]отвечает[/]",
    "[yellow]withdrawn[/]": "[yellow]отозвано[/]",
    "no generation is published yet. Run `sightline rebuild`.": (
        "ни одно поколение ещё не опубликовано. Запустите `sightline rebuild`."
    ),
    "generation [cyan]{number}[/] serves; workers take it over within {seconds:g} s and its reading. "
    "Withdrawn, and deleted by the next rebuild: {withdrawn}": (
        "отвечает поколение [cyan]{number}[/]; воркеры перейдут на него за {seconds:g} с и время чтения. "
        "Отозваны и будут удалены ближайшим перестроением: {withdrawn}"
    ),
    # -- columns
    "photo": "фото",
    "photos": "фото",
    "code": "код",
    "why": "почему",
    "similarity": "сходство",
    "provenance": "происхождение",
    "path": "путь",
    "generation": "поколение",
    "kind": "вид",
    "published": "опубликовано",
    "model": "модель",
    "check": "проверка",
    "what it says": "что говорит",
    "yes": "да",
    "no": "нет",
    "none": "нет",
    "none yet": "ещё не было",
    # -- doctor
    "backend": "исполнитель",
    "ms a photo": "мс на фото",
    "in a batch": "в пачке",
    "cosine to float32": "косинус к float32",
    "same neighbours": "те же соседи",
    "[green]ok[/]": "[green]да[/]",
    "[red]no[/]": "[red]нет[/]",
    "broker": "брокер",
    "database": "база",
    "index": "индекс",
    "photo folders": "папки с фото",
    "workers": "воркеры",
    "{broker} answers": "{broker} отвечает",
    "{broker}: {why}. Start Redis, or set SIGHTLINE_BROKER_URL.": (
        "{broker}: {why}. Запустите Redis или задайте SIGHTLINE_BROKER_URL."
    ),
    "at revision {there}, this release needs {wanted}. Run `sightline migrate`.": (
        "ревизия {there}, этому выпуску нужна {wanted}. Запустите `sightline migrate`."
    ),
    "answers, at revision {there}": "отвечает, ревизия {there}",
    "the weights of {encoder} are not on this machine. A worker downloads them at its start if it can reach the model "
    "hub, and otherwise says how to bring them.": (
        "весов {encoder} на этой машине нет. Воркер скачает их при запуске, если хранилище моделей доступно, а иначе "
        "скажет, как их принести."
    ),
    "{model}, {dimension} numbers, on {device} by {backend}": (
        "{model}, чисел: {dimension}, на {device}, исполняет {backend}"
    ),
    "generation {number} of {model}: {count} photos at seq {seq}, files whole": (
        "поколение {number} модели {model}: фото {count}, seq {seq}, файлы целы"
    ),
    "not there: {roots} (SIGHTLINE_PHOTO_ROOTS)": "нет на месте: {roots} (SIGHTLINE_PHOTO_ROOTS)",
    "no folder and no host is allowed. Set SIGHTLINE_PHOTO_ROOTS to where the photos lie.": (
        "не разрешены ни папки, ни адреса. Задайте в SIGHTLINE_PHOTO_ROOTS, где лежат фото."
    ),
    "URLs of {hosts}": "адреса {hosts}",
    "answer: {count} photos indexed with {model}": "отвечают: фото в индексе {count}, модель {model}",
    # -- stats
    "model key": "ключ модели",
    "dimension": "размерность",
    "device": "устройство",
    "has text": "понимает текст",
    "indexed": "в индексе",
    "refused": "отклонено",
    "generation count": "фото в поколении",
    "generation published at": "поколение опубликовано",
    "recall at 10": "recall@10",
    "delta": "добавлено после поколения",
    "next model key": "следующая модель",
    "next model missing": "без вектора следующей модели",
    "removed": "убрано",
    "purges pending": "незавершённых удалений",
    "seq": "seq",
    "cache hits": "попаданий в кэш",
    "cache misses": "промахов кэша",
    "rss mb": "память, МБ",
    "last rebuild": "последнее перестроение",
    "{run}, started {at}": "{run}, начато {at}",
}
