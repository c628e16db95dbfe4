"""Commands about instances that wait for a person."""

from collections.abc import Iterable
from typing import Any

import click
from emix.admin.v1 import admin_pb2 as pb

from node.cli.client import run_call
from node.errors import NodeError
from node.terminal.commands import as_json
from node.terminal.output import (
    Column,
    print_error,
    print_line,
    show_bytes,
    show_json,
    show_table,
    show_time,
)


@click.group(invoke_without_command=True)
@as_json
@click.pass_context
def held(context: click.Context, json_: bool) -> None:
    """List held instances, which wait for a person's decision.

    \b
    Examples:
      emix held
      emix held release 3 4
    """
    if context.invoked_subcommand is not None:
        return
    answer = run_call(context, "StudyService.ListHeld", pb.ListHeldRequest())
    if json_:
        show_json(answer)
        return
    show_table(
        (
            ">NUMBER",
            "SINCE",
            ">SIZE",
            Column("FILE OR SENDER", least=16, is_middle=True),
            Column("WHY", is_note=True),
        ),
        [
            (
                h.held_id,
                show_time(h.held_seconds),
                show_bytes(h.size_bytes),
                f"from {h.received_from}" if h.received_from else h.label,
                "; ".join(h.reasons),
            )
            for h in answer.held
        ],
        "Nothing is held.",
    )


@held.command()
@click.argument("numbers", nargs=-1, type=click.IntRange(1, 2**63 - 1), required=True)
@as_json
@click.pass_context
def release(context: click.Context, numbers: tuple[int, ...], json_: bool) -> None:
    """Release held instances, so that they are exported and sent.

    An imported instance gets a package of its own; a received one is released in its package.

    \b
    Example:
      emix held release 3 4
    """
    decided, errors = _decide_held(context, numbers, release=True, json_=json_)
    if json_:
        released = [{"held_id": n, "package_id": package} for n, package in decided.items()]
        show_json({"released": released, "errors": errors})
    if errors:
        raise SystemExit(errors[0]["exit_status"])


def _decide_held(
    context: click.Context, numbers: Iterable[int], *, release: bool, json_: bool
) -> tuple[dict[int, str], list[dict[str, Any]]]:
    """Release or discard held instances, each whatever becomes of the others.

    Returns:
        The package in which each now is that was decided about; and the errors, which are told.
    """
    decided, errors = dict[int, str](), list[dict[str, Any]]()
    for number in dict.fromkeys(numbers):
        request = pb.DecideHeldRequest(held_id=number, release=release)
        try:
            answer = run_call(context, "StudyService.DecideHeld", request)
        except NodeError as exc:
            facts = {"held_id": number, "code": exc.code.value, "message": str(exc)}
            errors.append({**facts, "exit_status": exc.exit_code})
            print_error(str(exc), code=exc.code.value, status=exc.exit_code, held_id=number)
            continue
        decided[number] = answer.package_id
        if not json_:
            end = f"released as package {answer.package_id[:8]}" if release else "discarded"
            print_line(f"{number}: {end}")
    return decided, errors


@held.command()
@click.argument("numbers", nargs=-1, type=click.IntRange(1, 2**63 - 1), required=True)
@as_json
@click.pass_context
def discard(context: click.Context, numbers: tuple[int, ...], json_: bool) -> None:
    """Delete held instances that were imported. Received ones stay in their package, held.

    \b
    Example:
      emix held discard 3
    """
    decided, errors = _decide_held(context, numbers, release=False, json_=json_)
    if json_:
        show_json({"discarded": list(decided), "errors": errors})
    if errors:
        raise SystemExit(errors[0]["exit_status"])


COMMANDS = (held,)
