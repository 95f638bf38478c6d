"""A package that knows nothing of shapecheck, its own tests, and contracts switched on from outside.

Runs the tests of the package without checks, and with the import hook in the modes ``on`` and ``strict``; then in mode
``warn``, which stops at nothing and so sees every alarm. Prints what was checked, what was refused and why, the alarms,
and the price in CPU time. For linear_operator, whose old pins do not matter here::

    pip install --no-deps --target site linear_operator==0.5.3
    pip download --no-binary :all: --no-deps linear_operator==0.5.3 && tar xf linear_operator-0.5.3.tar.gz
    rm -r linear_operator-0.5.3/linear_operator            # the tests must find the installed package
    python benchmarks/third_party.py linear_operator --site site --tests linear_operator-0.5.3

``--select test/utils`` runs a part. One process, one thread; the whole suite takes minutes in each mode.
"""

import argparse
import collections
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

PLUGIN = """
import json, os, re
import shapecheck
alarms = {}
calls = [0]
def pytest_warning_recorded(warning_message):
    if issubclass(warning_message.category, shapecheck.ContractWarning):
        text = str(warning_message.message)
        if text.startswith("ContractError"):
            alarms.setdefault(text.partition("\\n")[0], text)
def pytest_sessionfinish():
    report = shapecheck.hook_report()
    listed = {outcome: report.reasons(outcome) for outcome in ("contracted", "refused", "left alone", "nothing to check")}
    refused = [str(item) for item in report.of("refused")]
    with open(os.environ["FINDINGS"], "w") as file:
        json.dump({"alarms": alarms, "listed": listed, "refused": refused, "modules": len({i.module for i in report})}, file)
"""
OUTCOMES = re.compile(r"(\d+) (passed|failed|error|skipped)")


class Outcome(NamedTuple):
    """What one run of the tests gave."""

    counts: dict[str, int]
    seconds: float
    findings: dict[str, Any]
    summary: str


def run_tests(options: argparse.Namespace, mode: str) -> Outcome:
    """Run the tests of the package in a process of its own, in a mode or, for ``without``, as they are."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "collect_findings.py").write_text(PLUGIN)
        paths = [Path(__file__).parents[1], options.site, Path(folder)]
        environment = {
            **{name: value for name, value in os.environ.items() if name != "SHAPECHECK"},
            "PYTHONPATH": os.pathsep.join(str(path.resolve()) for path in paths),
            "FINDINGS": str(Path(folder) / "findings.json"),
            "OMP_NUM_THREADS": "1",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        }
        contracts = [
            "-p",
            "shapecheck.pytest_plugin",
            f"--shapecheck={mode}",
            f"--shapecheck-packages={options.package}",
        ]
        plugins = [] if mode == "without" else [*contracts, "-p", "collect_findings"]
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=no", *plugins, *options.select]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            command,
            cwd=options.tests,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=_be_nice,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        findings = Path(environment["FINDINGS"])
        found = json.loads(findings.read_text()) if findings.exists() else {}
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    summary = next((line for line in done.stdout.splitlines() if "contracts defined" in line), "")
    counts = {what: int(number) for number, what in OUTCOMES.findall(done.stdout.splitlines()[-1])}
    if not counts:
        sys.exit(f"The tests did not run:\n{done.stdout}{done.stderr}")
    return Outcome(counts, seconds, found, summary)


def _be_nice() -> None:
    os.nice(10)


def describe_checks(outcome: Outcome) -> None:
    """Print what the hook did, and what it refused."""
    listed = outcome.findings["listed"]
    numbers = ", ".join(f"{sum(reasons.values())} {what}" for what, reasons in listed.items())
    print(f"\nfunctions and classes in {outcome.findings['modules']} modules: {numbers}")
    for what in ("nothing to check", "left alone"):
        for reason, count in listed[what].items():
            print(f"  {what}: {count} x {reason}")
    for line in outcome.findings["refused"]:
        print(f"  {line}")
    print(outcome.summary)


def describe_alarms(outcome: Outcome) -> None:
    """Print the alarms by boundary and parameter, an example of each with its report."""
    alarms: dict[str, list[str]] = collections.defaultdict(list)
    for first, text in outcome.findings["alarms"].items():
        place = re.sub(r"\d+", "#", re.split(r": [a-z]\d|'(?:: | \(and)", first)[0])
        alarms[place].append(text)
    print(f"\nalarms: {len(alarms)} kinds")
    for place, texts in sorted(alarms.items()):
        print(f"- {place} ({len(texts)} texts), for example:")
        print("    " + texts[0].replace("\n", "\n    "))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", help="name of the installed package")
    parser.add_argument("--site", type=Path, default=Path(), help="folder that it is installed in, if not here")
    parser.add_argument("--tests", type=Path, required=True, help="folder to run pytest in")
    parser.add_argument("--select", nargs="*", default=[], help="what to run there; everything by default")
    parser.add_argument("--modes", nargs="*", default=["without", "off", "on", "strict", "warn"])
    options = parser.parse_args()
    outcomes: dict[str, Outcome] = {}
    print("| mode | passed | failed | CPU s | ratio |\n|---|---|---|---|---|")
    for mode in options.modes:
        outcome = outcomes[mode] = run_tests(options, mode)
        ratio = outcome.seconds / outcomes[options.modes[0]].seconds
        failed = outcome.counts.get("failed", 0) + outcome.counts.get("error", 0)
        print(
            f"| {mode} | {outcome.counts.get('passed', 0)} | {failed} | {outcome.seconds:.0f} | {ratio:.2f} |",
            flush=True,
        )
    checked = [outcome for mode, outcome in outcomes.items() if mode not in {"without", "off"}]
    if checked:
        describe_checks(checked[-1])
    if "warn" in outcomes:
        describe_alarms(outcomes["warn"])


if __name__ == "__main__":
    main()
