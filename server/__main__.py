"""The command `tidemark`."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from server.command.process import exit_code
from server.errors import SettingsError, StartError
from server.logs import set_up_logs
from server.settings import Settings, load_settings

# Commands import what they run only when they run, after the settings are validated.

cli = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A chat backend whose streamed answers cannot be lost.",
)
keys = typer.Typer(no_args_is_help=True, help="API keys.")
users = typer.Typer(no_args_is_help=True, help="Users and their sign-in links.")
cli.add_typer(keys, name="key")
cli.add_typer(users, name="user")

Config = Annotated[
    Path | None,
    typer.Option("--config", help="The settings file. Default: ./config.toml, if it exists."),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", help="The folder of the database, embedded Valkey and development key."
    ),
]

Processes = Annotated[
    int, typer.Option(help="The number of processes, forked from one that supervises them.", min=1)
]

console = Console()


@cli.command()
def up(
    config: Config = None,
    data_dir: DataDir = None,
    host: Annotated[str | None, typer.Option(help="The address to listen on.")] = None,
    port: Annotated[
        int | None,
        typer.Option(help="The port to listen on; 0 picks a free one.", min=0, max=65_535),
    ] = None,
    open_page: Annotated[
        bool, typer.Option("--open", help="Open the chat page in a browser.")
    ] = False,
) -> None:
    """Run everything on this machine: embedded Valkey if configured, migrations, web, worker."""
    settings = load_settings(config, data_dir)
    from server.command.up import run_up

    changed = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    settings = settings.model_copy(update={"server": settings.server.model_copy(update=changed)})
    set_up_logs("up")
    _check_models(settings)
    raise typer.Exit(run_up(settings, open_page=open_page))


@cli.command()
def web(config: Config = None, data_dir: DataDir = None, processes: Processes = 1) -> None:
    """Run web processes."""
    settings = _ready("web", config, data_dir)
    from server.command.web import run_web, run_webs

    _check_models(settings)
    if processes == 1:
        run_web(settings)
    else:
        raise typer.Exit(run_webs(settings, processes))


@cli.command()
def worker(config: Config = None, data_dir: DataDir = None, processes: Processes = 1) -> None:
    """Run worker processes."""
    settings = _ready("worker", config, data_dir)
    from server.command.worker import run_worker, run_workers

    _check_models(settings)
    if processes == 1:
        run_worker(settings)
    else:
        raise typer.Exit(run_workers(settings, processes))


@cli.command()
def redis(config: Config = None, data_dir: DataDir = None) -> None:
    """Run the embedded Valkey. With an external Redis, only wait."""
    from server.command.redis import run_redis

    run_redis(_ready("redis", config, data_dir))


@cli.command()
def migrate(config: Config = None, data_dir: DataDir = None) -> None:
    """Migrate the database to the current schema."""
    from server.history.schema import migrate as migrate_database

    settings = _ready("migrate", config, data_dir)
    before, after = asyncio.run(migrate_database(settings.database_url))
    if after == before:
        console.print(f"The schema is already at revision {after}.")
    else:
        console.print(f"Migrated the schema from revision {before} to {after}.")


@cli.command()
def doctor(config: Config = None, data_dir: DataDir = None) -> None:
    """Check settings, database, Redis and providers, and suggest fixes."""
    settings = load_settings(config, data_dir)
    from server.command.doctor import examine

    findings = examine(settings)
    for finding in findings:
        sign = (
            "[red]✗[/]" if finding.broken else "[yellow]![/]" if finding.advice else "[green]✓[/]"
        )
        line = f"{finding.about}: {finding.fact}" + (
            f". {finding.advice}" if finding.advice else ""
        )
        console.print(sign, escape(line), soft_wrap=True)
    raise typer.Exit(1 if any(finding.broken for finding in findings) else 0)


@cli.command()
def bench(
    scenario: Annotated[
        str, typer.Argument(help="What to measure. `list` shows all scenarios.")
    ] = "list",
    url: Annotated[str | None, typer.Option(help="Measure this running server.")] = None,
    streams: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="The number of streams.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(min=0, help="Tokens per second of each stream.")
    ] = None,
    readers: Annotated[
        int | None, typer.Option(min=1, max=20_000, help="The number of readers of one answer.")
    ] = None,
    database: Annotated[
        str | None, typer.Option(help="The address of an empty PostgreSQL database.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    config: Config = None,
    data_dir: DataDir = None,
) -> None:
    """Measure latency, throughput and memory on this machine, with a scripted model."""
    from server.bench import SCENARIOS, run

    load_settings(config, data_dir)
    if scenario == "list":
        _table(["scenario", "what it measures"], [[name, line] for name, line in SCENARIOS.items()])
        raise typer.Exit(0)
    if scenario not in SCENARIOS:
        names = ", ".join(SCENARIOS)
        raise SettingsError(f"Unknown scenario {scenario!r}: expected one of {names}.")
    raise typer.Exit(
        run(
            scenario,
            url=url,
            streams=streams,
            rate=rate,
            readers=readers,
            database=database,
            as_json=as_json,
        )
    )


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    account: Annotated[
        str | None,
        typer.Option("--account", help="The email address of a user. Default: the local account."),
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option("--expires", help="A number and m, h, d or w, e.g. 90d. Default: never."),
    ] = None,
    config: Config = None,
    data_dir: DataDir = None,
) -> None:
    """Create a key and print its secret, which is not shown again."""
    from server.command import people

    print(people.create_key(load_settings(config, data_dir), name, account, expires))


@keys.command("list")
def list_keys(config: Config = None, data_dir: DataDir = None) -> None:
    """List all keys."""
    from server.command import people

    _table(
        ["id", "key", "name", "account", "state"], people.list_keys(load_settings(config, data_dir))
    )


@keys.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(metavar="ID")],
    config: Config = None,
    data_dir: DataDir = None,
) -> None:
    """Revoke a key. Its open streams end within 5 s."""
    from server.command import people

    people.revoke_key(load_settings(config, data_dir), key_id)


@users.command("create")
def create_user(
    email: str,
    admin: Annotated[
        bool, typer.Option("--admin", help="Has no effect yet: users have no roles.")
    ] = False,
    config: Config = None,
    data_dir: DataDir = None,
) -> None:
    """Create a user."""
    from server.command import people

    people.create_user(load_settings(config, data_dir), email, admin=admin)


@users.command("list")
def list_users(config: Config = None, data_dir: DataDir = None) -> None:
    """List all users."""
    from server.command import people

    _table(["id", "email", "since"], people.list_users(load_settings(config, data_dir)))


@users.command("link")
def link(email: str, config: Config = None, data_dir: DataDir = None) -> None:
    """Print a sign-in link, which works once, within an hour."""
    from server.command import people

    print(people.link(load_settings(config, data_dir), email))


def _ready(process: str, config: Path | None, data_dir: Path | None) -> Settings:
    """Loads the settings, sets up logging and creates the data folder if anything is kept there.

    Raises StartError.
    """
    settings = load_settings(config, data_dir)
    set_up_logs(process)
    if settings.database.url and not settings.embedded_redis:
        return settings
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StartError(
            f"Cannot create the data folder {settings.data_dir}: {error.strerror}."
        ) from None
    return settings


def _check_models(settings: Settings) -> None:
    """Raises SettingsError if a configured model does not exist."""
    from server.providers.registry import Models

    Models(settings)


def _table(columns: list[str], rows: list[list[str]]) -> None:
    """Prints a table that is never cut to the width of the terminal, so that it can be piped."""
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    for row in [columns, *rows]:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )


def main() -> None:
    """Runs the command line. Exit codes: 0 done, 1 failed, 2 wrong use or settings."""
    sys.exit(exit_code(cli))


if __name__ == "__main__":
    main()
