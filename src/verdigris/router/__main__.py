"""``python -m verdigris.router --home DIR``"""

import argparse
import os
import resource
import sys
from pathlib import Path

from verdigris.domain.errors import VerdigrisError
from verdigris.router.limits import Limits
from verdigris.router.run import Loop, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="verdigris.router", description="The router of one state directory.")
    parser.add_argument("--home", type=Path, required=True, help="the state directory (VERDIGRIS_HOME)")
    parser.add_argument(
        "--loop",
        choices=list(Loop),
        default=Loop.AUTO,
        help="the event loop: uvloop if it is installed, or asyncio's own",
    )
    parser.add_argument("--succeed", action="store_true", help="take over from the router that runs, with its clients")
    default = Limits()
    parser.add_argument("--max-connections", type=int, default=default.max_connections, help="per endpoint")
    parser.add_argument("--max-wait", type=float, default=default.max_wait_s, help="of a client in a pause, in seconds")
    parser.add_argument("--drain", type=float, default=default.drain_s, help="of what cannot be moved, in seconds")
    parser.add_argument("--keepalive", type=int, default=default.keepalive_s, help="silence of a client, in seconds")
    arguments = parser.parse_args()
    limits = Limits(
        max_connections=arguments.max_connections,
        max_wait_s=arguments.max_wait,
        drain_s=arguments.drain,
        keepalive_s=arguments.keepalive,
    )
    os.umask(0o077)  # whatever it was started with: nothing that the router writes is for others
    resource.setrlimit(
        resource.RLIMIT_CORE, (0, 0)
    )  # its memory holds what logins to green are made of (decision 0004)
    try:
        run(arguments.home, Loop(arguments.loop), limits, succeed=arguments.succeed)
    except VerdigrisError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
