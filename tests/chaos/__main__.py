"""`python -m tests.chaos --seed 1 --minutes 5`: kill parts of a system under load, and compare."""

import argparse
import asyncio
import contextlib
import sys
import tempfile
import time
from pathlib import Path

from serve.cli.output import err, out, print_json, wants_json
from tests.chaos.run import Plan, run
from tests.chaos.schedule import Kind


def main() -> int:
    """Run as the arguments say; 0: every promise was kept."""
    arguments = _parser().parse_args()
    kinds = [kind for kind in Kind if any(word in kind.value for word in arguments.only)]
    plan = Plan(
        seed=arguments.seed,
        chaos_s=arguments.minutes * 60,
        rate=arguments.rate,
        channels=arguments.channels,
        kinds=kinds,
    )
    err().print(f"seed {plan.seed}, {plan.rate:.0f} messages/s, {plan.channels} channels")
    with contextlib.ExitStack() as stack:
        work = arguments.keep or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="raywire-chaos-"))
        )
        work.mkdir(parents=True, exist_ok=True)
        report = asyncio.run(run(plan, work.resolve(), _tell))
    if wants_json(asked=arguments.json):
        print_json(report.as_json(), indent=2)
    else:
        report.show(out())
    return 0 if report.good else 1


def _tell(text: str) -> None:
    err().print(text, markup=False, soft_wrap=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the plan")
    parser.add_argument("--minutes", type=float, default=5.0, help="of strikes")
    parser.add_argument("--rate", type=float, default=1000.0, help="messages a second")
    parser.add_argument("--channels", type=int, default=200)
    parser.add_argument(
        "--only",
        nargs="+",
        default=[""],
        metavar="WORD",
        help="only strikes whose name has one of these, e.g. kill valkey",
    )
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep data and log there")
    parser.add_argument("--json", action="store_true", help="also on a terminal")
    return parser


if __name__ == "__main__":
    sys.exit(main())
