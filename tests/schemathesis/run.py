"""Runs schemathesis against the built binary: every check, every phase, over /openapi.json.

The service is open and without limits, since they would answer 429 to many of the cases; with
`--guarded` it asks for an API key and keeps its limits. It fails if a case fails, if fewer cases ran
than were asked for, if a refusal that the mode is for never came, or if the binary logged a failure of
its own.
"""

import argparse
import contextlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from mail_sink import MailSink  # noqa: E402 (found only on the path set above)
from otpost_process import BINARY, Otpost  # noqa: E402

# What must have been answered where keys and limits are. Not 409: on the embedded store a request and
# its idempotency key are one transaction, which leaves nothing in flight.
GUARDED_STATUSES = {202, 401, 422, 429, 503}
# Requests for codes in a minute, so few that each run comes to them.
GLOBAL_LIMIT = 30


def main() -> int:
    options = arguments()
    seeds = options.seed or [secrets.randbelow(2**32) for _ in range(options.random_seeds)]
    for seed in seeds:
        if not passes(options, seed):
            print(f"failed with --seed {seed} --examples {options.examples}", file=sys.stderr)
            return 1
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, action="append", help="a fixed seed; may be repeated")
    parser.add_argument("--random-seeds", type=int, default=1, help="seeds to draw without --seed")
    parser.add_argument("--examples", type=int, default=100, help="bound per operation and phase")
    parser.add_argument("--at-least", type=int, default=1, help="cases that must run per seed")
    parser.add_argument("--guarded", action="store_true", help="with an API key and limits")
    parser.add_argument("--binary", type=Path, default=BINARY)
    return parser.parse_args()


def passes(options: argparse.Namespace, seed: int) -> bool:
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        settings, key = guard(options.binary, stack.enter_context(MailSink())) if options.guarded else (None, "")
        otpost = stack.enter_context(Otpost(folder, options.binary, settings))
        report = folder / "report.json"
        config = "guarded.toml" if options.guarded else "schemathesis.toml"
        status = subprocess.run(
            [
                Path(sys.executable).parent / "schemathesis",
                f"--config-file={HERE / config}",
                "run",
                f"{otpost.url}/openapi.json",
                f"--seed={seed}",
                f"--max-examples={options.examples}",
                "--report=json",
                f"--report-json-path={report}",
            ],
            # What it keeps for a next run would make two runs of one seed differ.
            cwd=folder,
            env={**os.environ, "OTPOST_API_KEY": key},
            check=False,
        ).returncode
        trouble = otpost.trouble()
        missing = GUARDED_STATUSES - otpost.statuses() if options.guarded and not trouble else set()
        cases = json.loads(report.read_text())["test_cases"]["generated"] if report.exists() else 0
    if trouble:
        print(trouble, file=sys.stderr)
    if missing:
        print(f"never answered: {sorted(missing)}", file=sys.stderr)
    print(f"seed {seed}: {cases} cases in {time.monotonic() - started:.0f} s")
    return status == 0 and not trouble and not missing and cases >= options.at_least


def guard(binary: Path, mails: MailSink) -> tuple[dict[str, str], str]:
    """The settings of a service that asks for an API key, and the key; its limits are the defaults,
    but for that of the whole service, which has none."""
    made = subprocess.run([binary.resolve(), "apikey"], stdout=subprocess.PIPE, text=True, check=True)
    key, listed = made.stdout.splitlines()
    settings = {
        "OTPOST__HTTP__API_KEYS": listed.split('"')[1],
        "OTPOST__LIMITS__GLOBAL__PER_MINUTE": str(GLOBAL_LIMIT),
        "OTPOST__MAIL__SMTP__URL": mails.url,
        "OTPOST__MAIL__FROM": "otpost <no-reply@example.com>",
    }
    return settings, key


if __name__ == "__main__":
    sys.exit(main())
