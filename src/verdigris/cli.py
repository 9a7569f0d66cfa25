"""The command line: thin. Each command says what it does; the work is done elsewhere.

Imports of the heavy parts are inside the commands, so that ``verdigris --version`` answers at once.
"""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import rich
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from verdigris import __version__
from verdigris.config import Settings, find_credentials, load_settings, make_credentials, prepare_home
from verdigris.domain.errors import VerdigrisError

if TYPE_CHECKING:
    from verdigris.admin import Sheet

app = typer.Typer(
    name="verdigris",
    help="Amazon RDS Blue/Green Deployments for the PostgreSQL servers you run yourself.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
engines = typer.Typer(help="The PostgreSQL versions that instances can run.", no_args_is_help=True)
app.add_typer(engines, name="engines")
deployments = typer.Typer(help="Blue/green deployments and their switchovers.", no_args_is_help=True)
app.add_typer(deployments, name="deployments")
router = typer.Typer(help="The process that clients are connected to.", no_args_is_help=True)
app.add_typer(router, name="router")
keys = typer.Typer(help="Access keys that are allowed less than the first one.", no_args_is_help=True)
app.add_typer(keys, name="keys")

DEFAULT_PORT = 8432


def main() -> None:
    """Entry point: an error that Verdigris raises on purpose is one line on standard error, not a traceback."""
    try:
        app()
    except VerdigrisError as error:
        # Whole, however narrow the terminal, and as it stands: names in it may look like markup.
        Console(stderr=True, soft_wrap=True).print(f"[red]verdigris:[/red] {escape(str(error))}")
        raise SystemExit(1) from None


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"verdigris {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options before the command."""


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address for the API to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port for the API to listen on.")] = DEFAULT_PORT,
    insecure_listen: Annotated[
        bool,
        typer.Option(help="Allow plain HTTP on an address other than loopback."),
    ] = False,
) -> None:
    """Run the control plane in the foreground; starts or attaches to the router and engines of this state directory."""
    from verdigris.app import serve_until_stopped

    asyncio.run(serve_until_stopped(load_settings(), host=host, port=port, insecure_listen=insecure_listen))


@app.command()
def demo(
    clients: Annotated[int, typer.Option(min=2, help="Client connections, half of them writing.")] = 16,
    rows: Annotated[int, typer.Option(min=1000, help="Rows to load before the workload starts.")] = 300_000,
    source: Annotated[str, typer.Option(help="PostgreSQL version to start with.")] = "17.10",
    target: Annotated[str, typer.Option(help="PostgreSQL version to switch to.")] = "18.6",
    keep: Annotated[bool, typer.Option(help="Keep the state directory.")] = False,
    json: Annotated[Path | None, typer.Option(help="Write the report to this file as JSON.")] = None,
) -> None:
    """The main job from nothing, on a throw-away state directory, with a report; fails if any promise broke."""
    from verdigris.demo.run import DemoOptions
    from verdigris.demo.run import main as run_demo

    raise typer.Exit(
        run_demo(DemoOptions(clients=clients, rows=rows, source=source, target=target, keep=keep, json_path=json))
    )


@app.command()
def credentials(
    export: Annotated[bool, typer.Option("--export", help="Print shell lines for AWS tools.")] = False,
    port: Annotated[int, typer.Option(help="Port that `verdigris serve` listens on.")] = DEFAULT_PORT,
) -> None:
    """Endpoint URL, region and access key of the API; made on first use."""
    settings = load_settings()
    prepare_home(settings)
    key = find_credentials(settings) or make_credentials(settings)
    lines = {
        "AWS_ENDPOINT_URL_RDS": _endpoint_url(settings, port),
        "AWS_DEFAULT_REGION": settings.region,
        "AWS_ACCESS_KEY_ID": key.access_key_id,
        "AWS_SECRET_ACCESS_KEY": key.secret_access_key,
    }
    for name, value in lines.items():
        typer.echo(f"export {name}={value}" if export else f"{name:24} {value}")


def _endpoint_url(settings: Settings, port: int) -> str:
    from verdigris.admin import running_endpoint_url

    scheme = "http" if settings.tls is None else "https"
    return running_endpoint_url(settings) or f"{scheme}://127.0.0.1:{port}"


@app.command()
def status() -> None:
    """What runs under this state directory."""
    from verdigris.admin import read_status

    for sheet in asyncio.run(read_status(load_settings())):
        rich.print(_table(sheet))


@app.command()
def down() -> None:
    """Stop the control plane, the router and the engines of this state directory. Data stays."""
    from verdigris.admin import stop_everything

    for line in asyncio.run(stop_everything(load_settings())):
        typer.echo(line)


def _table(sheet: "Sheet") -> Table:
    table = Table(title=sheet.title, title_justify="left")
    for column in sheet.columns:
        table.add_column(column, overflow="fold")
    for row in sheet.rows:
        table.add_row(*(escape(str(value)) for value in row))
    return table


@deployments.command("show")
def deployments_show(
    identifier: Annotated[str, typer.Argument(help="For example bgd-0123456789abcdef.")],
    json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """One deployment and the timeline of each of its switchovers."""
    import msgspec

    from verdigris.deployment_report import read_deployment, sheets

    report = read_deployment(load_settings(), identifier)
    if json:
        typer.echo(msgspec.json.format(msgspec.json.encode(report)))
        return
    for sheet in sheets(report):
        rich.print(_table(sheet))


@deployments.command("check")
def deployments_check(
    identifier: Annotated[str, typer.Argument(help="For example bgd-0123456789abcdef.")],
    json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Look at every guardrail without switching over; fails if a switchover would be refused."""
    import msgspec

    from verdigris.deployment_check import check_deployment, sheet

    report = asyncio.run(check_deployment(load_settings(), identifier))
    if json:
        typer.echo(msgspec.json.format(msgspec.json.encode(report)))
    else:
        rich.print(_table(sheet(report)))
    raise typer.Exit(0 if report.passed else 1)


@deployments.command("cancel")
def deployments_cancel(
    identifier: Annotated[str, typer.Argument(help="For example bgd-0123456789abcdef.")],
) -> None:
    """Take back a switchover that is under way; refused once it is past the point of no return."""
    from verdigris.operator_client import cancel_switchover

    typer.echo(asyncio.run(cancel_switchover(load_settings(), identifier)))


@router.command("restart")
def router_restart() -> None:
    """Replace the router's process, for an upgrade or new settings; clients without TLS do not notice."""
    from verdigris.admin import restart_router

    for line in asyncio.run(restart_router(load_settings())):
        typer.echo(line)


Actions = Annotated[list[str], typer.Option("--action", help="For example 'rds:Describe*'. May be repeated.")]
Resources = Annotated[
    list[str], typer.Option("--resource", help="For example 'arn:aws:rds:*:*:db:dev-*'. May be repeated.")
]
KeyId = Annotated[str, typer.Argument(help="An access key id, as `verdigris keys list` shows it.")]
EVERYTHING = ["*"]


@keys.command("create")
def keys_create(
    user: Annotated[str, typer.Argument(help="Whose key it is: refusals and the log name it.")],
    action: Actions,
    resource: Resources = EVERYTHING,
) -> None:
    """Make a key that is allowed these actions on these resources. Its secret is shown this once."""
    from verdigris.domain.access import Rule
    from verdigris.keys import create_key

    settings = load_settings()
    prepare_home(settings)
    key = create_key(settings.keys_path, user, Rule(actions=tuple(action), resources=tuple(resource)))
    typer.echo(f"{'AWS_ACCESS_KEY_ID':24} {key.access_key_id}")
    typer.echo(f"{'AWS_SECRET_ACCESS_KEY':24} {key.secret_access_key}")


@keys.command("allow")
def keys_allow(access_key_id: KeyId, action: Actions, resource: Resources = EVERYTHING) -> None:
    """Allow a key something more."""
    from verdigris.domain.access import Rule
    from verdigris.keys import allow

    allow(load_settings().keys_path, access_key_id, Rule(actions=tuple(action), resources=tuple(resource)))


@keys.command("list")
def keys_list() -> None:
    """The keys and what they are allowed, without their secrets."""
    from verdigris.admin import list_keys

    rich.print(_table(list_keys(load_settings())))


@keys.command("delete")
def keys_delete(access_key_id: KeyId) -> None:
    """Take a key away: the next request that is signed with it is refused."""
    from verdigris.keys import delete_key

    delete_key(load_settings().keys_path, access_key_id)


@engines.command("list")
def engines_list() -> None:
    """Every version that is installed or can be fetched."""
    from verdigris.admin import list_engines

    rich.print(_table(asyncio.run(list_engines(load_settings()))))


@engines.command("install")
def engines_install(version: Annotated[str, typer.Argument(help="For example 16.15.")]) -> None:
    """Fetch a version, check its hash, unpack and probe it."""
    from verdigris.admin import install_engine

    typer.echo(asyncio.run(install_engine(load_settings(), version)))


@engines.command("doctor")
def engines_doctor() -> None:
    """Check what engines need of this machine; fails if something is missing."""
    from verdigris.admin import check_engines

    sheet, healthy = asyncio.run(check_engines(load_settings()))
    rich.print(_table(sheet))
    raise typer.Exit(0 if healthy else 1)


if __name__ == "__main__":
    main()
