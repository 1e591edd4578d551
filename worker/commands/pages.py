"""Help pages and usage errors: what typer says by itself, in the language that is set. Knows no command."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException

from producer_client.arguments import LONGEST_WAIT_S
from producer_client.errors import BadRequest, Declined
from producer_client.language import to_say
from worker.commands.terminal import HIGHEST_ID, Misused
from worker.invalid import fault
from worker.words import in_language, say

#: What typer calls kinds of values, in words. A switch needs none, and a choice names its words.
KINDS = {
    "<bool>": "",
    "<str>": to_say("<text>"),
    "<int>": to_say("<whole number>"),
    "<int range>": to_say("<whole number>"),
    "<float range>": to_say("<number>"),
    "<list[str]>": to_say("<text>"),
    "<list[int]>": to_say("<whole numbers>"),
    "<float>": to_say("<number>"),
    "<Path>": to_say("<path>"),
    "<list[Path]>": to_say("<paths>"),
}


def speak() -> None:
    """Before a page is shown: titles, and what stands beside an option."""
    import typer.rich_utils as shown  # Markdown and all, which no command needs that shows none

    shown.ARGUMENTS_PANEL_TITLE = say("Arguments")
    shown.OPTIONS_PANEL_TITLE = say("Options")
    shown.COMMANDS_PANEL_TITLE = say("Commands")
    shown.DEFAULT_STRING = say("[default: {}]")
    required = say("required")
    shown.REQUIRED_LONG_STRING = f"[{required}]"


def usage_fault(exc: TyperException) -> str:
    """What is wrong with a call, and how to see what is right."""
    if isinstance(exc.__cause__, ValidationError):
        exc.message = fault(exc.__cause__.errors()[0])
    wrong = in_language(exc.format_message()).removesuffix(".")
    ctx = getattr(exc, "ctx", None)
    if ctx is None:
        return wrong
    # "Did you mean ...?" has its end.
    end = "" if wrong.endswith("?") else "."
    return " ".join([wrong + end, say("See `{command} --help`.", command=ctx.command_path)])


class _InWords:
    """Of a command or a group of them: the usage line, and the kinds of values."""

    def get_params(self, ctx: Any) -> list[Any]:
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]  # of the class beside it
        for param in params:
            if param.name == "help":
                param.help, param.metavar = say("Show this message and exit."), ""
            elif param.param_type_name == "argument" or param.metavar is None:
                kind = KINDS.get(kind := param.display_type(ctx), kind)
                param.display_type_rich = lambda ctx, kind=kind: say(kind) if kind else ""
            if getattr(param, "max", None) in (HIGHEST_ID, LONGEST_WAIT_S):
                # A limit that nobody means to reach, and too long for its column.
                param._get_number_range_help_str = lambda: None
        return params

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Of an option without its value typer does not say to which command it was given."""
        try:
            left: list[str] = super().parse_args(ctx, args)  # type: ignore[misc]  # of the class beside it
        except TyperException as exc:
            exc.ctx = getattr(exc, "ctx", None) or ctx  # type: ignore[attr-defined]  # of most of them
            raise
        return left

    def format_help(self, ctx: Any, formatter: Any) -> None:
        speak()
        super().format_help(ctx, formatter)  # type: ignore[misc]  # of the class beside it

    def format_usage(self, ctx: Any, formatter: Any) -> None:
        pieces = self.collect_usage_pieces(ctx)  # type: ignore[attr-defined]  # of the class beside it
        formatter.write_usage(ctx.command_path, " ".join(pieces), prefix=say("Usage: "))


class Command(_InWords, TyperCommand):
    def invoke(self, ctx: Any) -> Any:
        """What the command, or the client before it sends anything, finds wrong in its words is a fault of usage, as
        what typer finds."""
        try:
            return super().invoke(ctx)
        except Misused as exc:
            exc.ctx = ctx
            raise
        except Declined:
            raise
        except BadRequest as exc:
            fault = Misused(exc.message, exc.code)
            fault.ctx = ctx
            raise fault from exc


class Group(_InWords, TyperGroup):
    pass
