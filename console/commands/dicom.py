"""`ionctl dicom`: plans in and records out, by DICOM C-STORE."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path

import click

from console.options import JSON
from console.settings import Settings
from facility.errors import ExitCode, no_such

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.group()
def dicom() -> None:
    """Receive plans and send records by DICOM C-STORE."""


@dicom.command()
@click.option("--port", type=click.IntRange(0, 65535), help="Instead of the configured one; 0: any free one.")
@click.option(
    "--into", type=click.Path(path_type=Path, file_okay=False), help="Folder; default `received` in the home."
)
@click.pass_obj
def receive(settings: Settings, port: int | None, into: Path | None) -> int:
    """Receive plans until Ctrl-C or SIGTERM.

    Who may send, how much, and where we listen stands in dicom.toml. Says READY and a JSON object when it listens.
    """
    from facility.config.dicom import load_dicom_config
    from rig.dicom_receive import Receiver
    from rig.logs import configure_logs

    configure_logs(
        json_lines=settings.log_json, level="info" if settings.log_level == "warning" else settings.log_level
    )
    folder = into or settings.home().received
    folder.mkdir(parents=True, exist_ok=True)
    config = load_dicom_config(settings.config_dir).receive
    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    with Receiver(config, folder, port) as receiver:
        said = {"pid": os.getpid(), "ae_title": config.ae_title, "host": config.host, "port": receiver.port,
                "folder": str(folder)}  # fmt: skip
        print("READY " + json.dumps(said, sort_keys=True), flush=True)
        over.wait()
    return int(ExitCode.OK)


@dicom.command()
@click.argument("files", metavar="FILE", nargs=-1, required=True, type=_FILE)
@click.option("--to", "name", default="records", show_default=True, help="Destination of dicom.toml.")
@JSON
@click.pass_obj
def send(settings: Settings, files: tuple[Path, ...], name: str, as_json: bool) -> int:
    """Send treatment records or plans; exit code 6 if one was not stored at the other end."""
    from console.tables import print_json
    from facility.config.dicom import load_dicom_config
    from rig.dicom_send import send_files

    config = load_dicom_config(settings.config_dir)
    if name not in config.send:
        raise no_such("dicom.destination", "destination", name, config.send, where="dicom.toml")
    sent = send_files(files, config.send[name], config.receive.ae_title)
    if as_json:
        print_json({"sent": [{**vars(one), "stored": one.stored} for one in sent]})
    else:
        for one in sent:
            print(f"{one.file}: {'stored' if one.stored else f'refused, 0x{one.status:04X} {one.words}'}")
    return int(ExitCode.OK if all(one.stored for one in sent) else ExitCode.TARGET_UNAVAILABLE)
