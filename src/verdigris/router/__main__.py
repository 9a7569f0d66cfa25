"""``python -m verdigris.router --home DIR``"""

import argparse
import sys
from pathlib import Path

from verdigris.domain.errors import VerdigrisError
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
    arguments = parser.parse_args()
    try:
        run(arguments.home, Loop(arguments.loop))
    except VerdigrisError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
