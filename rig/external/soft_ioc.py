"""The soft IOC of EPICS base (C, as epicscorelibs brings it) with one of our databases: a device to try with.

    python -m rig.external.soft_ioc scan-supply.db --prefix PS1: --port 5072

Says READY once it serves; takes lines of the IOC shell (`dbl`, `dbpf PV VALUE`); ends with its standard input.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from facility.config import find_config
from facility.errors import ConfigError
from rig.priority import hurry

FOLDER = "external"
MENU = "menuScan.dbd"
READY = "READY"
DONE = "DONE"
"""Said after each line of the shell."""


def serve(database: str, prefix: str, port: int) -> None:
    """Load a database of the configuration folders and serve it on loopback; ConfigError without one."""
    source, menu = (find_config(f"{FOLDER}/{name}") for name in (database, MENU))
    if source is None or menu is None:
        raise ConfigError("external.no-database", f"no database {database!r}", FOLDER, "scan-supply.db, for instance")
    os.environ.update(EPICS_CAS_SERVER_PORT=str(port), EPICS_CAS_INTF_ADDR_LIST="127.0.0.1",
                      EPICS_CAS_BEACON_ADDR_LIST="127.0.0.1", EPICS_CAS_AUTO_BEACON_ADDR_LIST="NO")  # fmt: skip
    try:
        import epicscorelibs.ioc as soft_ioc
    except ImportError as problem:
        raise ConfigError("external.no-ioc", str(problem), database, "pip install epicscorelibs") from problem
    base: Any = soft_ioc
    base.iocshRegisterCommon()
    folders = os.pathsep.join([str(Path(str(menu)).parent), base.DEFAULT_DBD_PATH])  # our scan rates come first
    steps: tuple[Callable[[], Any], ...] = (
        lambda: base.dbLoadDatabase(b"base.dbd", folders.encode(), None),
        lambda: base.registerRecordDeviceDriver(base.pdbbase),
        lambda: base.dbLoadRecords(str(source).encode(), f"P={prefix}".encode()),
        base.iocInit,
    )
    if any(step() for step in steps):
        raise ConfigError("external.database", "the IOC does not take it", str(source), "see what it says above")


def main(arguments: list[str]) -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(prog="rig.external.soft_ioc")
    parser.add_argument("database")
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args(arguments)
    hurry()  # hardware waits for nobody
    serve(options.database, options.prefix, options.port)
    os.write(1, f"{READY}\n".encode())
    import epicscorelibs.ioc as soft_ioc

    for line in sys.stdin:  # its shell
        soft_ioc.ioc(line.strip())
        os.write(1, f"{DONE}\n".encode())
    sys.stdout.flush()
    os._exit(0)  # the IOC's own threads do not end


if __name__ == "__main__":
    main(sys.argv[1:])
