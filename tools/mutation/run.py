"""Mutation testing: which small changes of revgraph do its tests not notice?

`record` runs tests once and keeps which of them reach which line, and how long each takes. `try` makes the
mutants of modules and runs for each the tests that reach its line, until one fails or --seconds are spent.
All tests are collected once; each mutant has a process of its own, forked off with its function replaced.
What runs when revgraph is imported cannot be replaced so, and is tried in a new interpreter.
"""

import argparse
import ast
import contextlib
import importlib.util
import json
import os
import random
import re
import resource
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import coverage
import hypothesis
import pytest
from _pytest.runner import runtestprotocol
from mutants import Mutant, mutants_of

AT_IMPORT = ""
"""What coverage calls the lines that run outside any test."""
VERDICTS = ("killed", "timed out", "survived", "not reached")
MEMORY = 12 << 30
BROKEN = 99
"""The exit status of a child that could not be given its mutant."""
LEAST = 10
"""Seconds that a mutant's tests have, however quick they are by themselves."""


# ---------------------------------------------------------------- which tests reach which line


class Recorder:
    """A pytest plugin that records lines and durations, test by test."""

    def __init__(self, work: Path) -> None:
        self._file = work / "tests.json"
        self._coverage = coverage.Coverage(data_file=None, source=["revgraph"], config_file=False)
        self._coverage.start()
        self._seconds: dict[str, float] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        self._coverage.switch_context(item.nodeid)
        begin = time.perf_counter()
        result = yield
        self._seconds[item.nodeid] = round(time.perf_counter() - begin, 3)
        self._coverage.switch_context(AT_IMPORT)
        return result

    def pytest_sessionfinish(self) -> None:
        self._coverage.stop()
        data = self._coverage.get_data()
        lines = {os.path.relpath(file): data.contexts_by_lineno(file) for file in data.measured_files()}
        known = json.loads(self._file.read_text()) if self._file.exists() else {"seconds": {}, "lines": {}}
        known["seconds"] |= self._seconds
        for file, reached in lines.items():
            kept = known["lines"].setdefault(file, {})
            for line, tests in reached.items():
                kept[str(line)] = sorted({*kept.get(str(line), ()), *tests})
        self._file.write_text(json.dumps(known))


class Reach:
    """What `record` found."""

    def __init__(self, work: Path) -> None:
        known = json.loads((work / "tests.json").read_text())
        self.seconds: dict[str, float] = known["seconds"]
        self._lines: dict[str, dict[str, list[str]]] = known["lines"]

    def tests(self, file: str, lines: Iterable[int]) -> set[str]:
        """Those that reach any of the lines."""
        reached = self._lines.get(file, {})
        return {test for line in lines for test in reached.get(str(line), ())}

    def queue(self, tests: set[str], near: set[str], first: Counter[str], seconds: float) -> list[str]:
        """The tests for one mutant: those that killed others, those near it, then one of each function."""
        turn: Counter[str] = Counter()
        order: list[tuple[int, bool, int, float, str]] = []
        for test in sorted(tests & self.seconds.keys(), key=self.seconds.__getitem__):
            function = test.partition("[")[0]
            order.append((-first[test], test not in near, turn[function], self.seconds[test], test))
            turn[function] += 1
        left, chosen = seconds, list[str]()
        for *_, test in sorted(order):
            if self.seconds[test] <= left or not chosen:
                left -= self.seconds[test]
                chosen.append(test)
        return chosen


# ---------------------------------------------------------------- one mutant


def lines_about(source: str, line: int) -> range:
    """Those of the statement at a line; of one that holds others, its head."""
    found = range(line, line + 1)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or line):
            body = getattr(node, "body", None)
            if not body or line < body[0].lineno:
                found = range(node.lineno, body[0].lineno if body else (node.end_lineno or line) + 1)
    return found


def lines_named(source: str, line: int) -> set[int]:
    """A line of a table, and the bodies of the functions that it names."""
    words = set(re.findall(r"\w+", source.splitlines()[line - 1]))
    functions = [each for each in ast.parse(source).body if isinstance(each, ast.FunctionDef)]
    return {line}.union(*(lines_of(source, each.name) for each in functions if each.name in words))


def mirrors(test: str, file: str) -> bool:
    """Whether a test is in the file that is there for the module."""
    return Path(test.partition("::")[0]).stem == f"test_{Path(file).stem}"


def lines_of(source: str, function: str) -> range:
    """Those of the body of a function."""
    body = ast.parse(source).body
    for name in function.split("."):
        node = next(each for each in body if getattr(each, "name", None) == name)
        body = node.body
    return range(body[0].lineno, (body[-1].end_lineno or 0) + 1)


def module_of(file: str) -> str:
    return file.removesuffix(".py").replace("/", ".").removesuffix(".__init__")


def transplant(mutant: Mutant) -> None:
    """Give the live function, which tables and closures hold by now, the code of the mutant's."""
    live = sys.modules[module_of(mutant.file)]
    fresh = ModuleType(live.__name__)
    exec(compile(mutant.source, mutant.file, "exec"), fresh.__dict__)
    old, new = _function(live, mutant.function), _function(fresh, mutant.function)
    old.__code__, old.__defaults__, old.__kwdefaults__ = new.__code__, new.__defaults__, new.__kwdefaults__


def _function(module: ModuleType, name: str) -> FunctionType:
    found: Any = module
    for part in name.split("."):
        found = vars(found)[part]
    for wrapped in ("__func__", "fget", "func", "__wrapped__"):
        found = getattr(found, wrapped, found)
    return found


class Replaced:
    """An import hook that gives one module another source."""

    def __init__(self, module: str, source: str) -> None:
        self._module, self._source = module, source

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        return importlib.util.spec_from_loader(name, self) if name == self._module else None

    def create_module(self, spec: Any) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self._source, self._module, "exec"), module.__dict__)


# ---------------------------------------------------------------- all mutants


class Trial:
    """A pytest plugin that runs mutants in place of the tests."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._reach = Reach(options.work)
        self._killers: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._pipe = options.work / "killer"

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = {item.nodeid: item for item in session.items}
        done = read_results(self._options.results)
        with self._options.results.open("a") as results:
            for mutant in chosen(self._options, done):
                begin = time.perf_counter()
                verdict, killer, ran = self._try(mutant, items)
                row = {"key": mutant.key, "line": mutant.line, "verdict": verdict, "killer": killer}
                row |= {"tests": ran, "seconds": round(time.perf_counter() - begin, 2)}
                print(json.dumps(row), file=results, flush=True)
        return True

    def _try(self, mutant: Mutant, items: dict[str, pytest.Item]) -> tuple[str, str, int]:
        reach, original = self._reach, Path(mutant.file).read_text()
        tests = reach.tests(mutant.file, lines_about(original, mutant.line)) - {AT_IMPORT}
        alone = not mutant.function
        if mutant.function:
            body = lines_of(original, mutant.function)
            alone = AT_IMPORT in reach.tests(mutant.file, body)
        near = {test for test in tests if mirrors(test, mutant.file)}
        if alone:
            named = reach.tests(mutant.file, lines_named(original, mutant.line)) - {AT_IMPORT}
            # Of what runs at import alone any test of the module may tell.
            tests = tests | named or reach.tests(mutant.file, range(len(original))) - {AT_IMPORT}
            near = named or {test for test in tests if mirrors(test, mutant.file)}
        killers = self._killers[mutant.file if alone else f"{mutant.file} {mutant.function}"]
        queue = [test for test in reach.queue(tests, near, killers, self._options.seconds) if test in items]
        if not queue:
            return "not reached", "", 0
        patience = LEAST + 10 * sum(reach.seconds[test] for test in queue)
        self._pipe.write_text("")
        pid = os.fork()
        if not pid:
            self._child(mutant, [items[test] for test in queue], alone)
        status = _wait(pid, patience)
        killer = self._pipe.read_text()
        if status is None:
            return "timed out", killer, len(queue)
        if status == 0:
            return "survived", "", len(queue)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == BROKEN:
            raise RuntimeError(f"{mutant.key}\n{killer}")
        killers[killer] += 1
        return "killed", killer, len(queue)

    def _child(self, mutant: Mutant, items: list[pytest.Item], alone: bool) -> None:
        """Never returns; its status is 0 where no test fails."""
        os.setsid()
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        silence = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(silence, stream)
        try:
            if alone:
                source = self._options.work / "mutant.py"
                source.write_text(mutant.source)
                command = [sys.executable, __file__, "alone", module_of(mutant.file), str(source)]
                os.execv(sys.executable, [*command, *(item.nodeid for item in items)])
            transplant(mutant)
            for item, after in zip(items, [*items[1:], None], strict=True):
                if any(report.failed for report in runtestprotocol(item, log=False, nextitem=after)):
                    self._pipe.write_text(item.nodeid)
                    os._exit(1)
            os._exit(0)
        except BaseException as error:
            self._pipe.write_text(repr(error))
            os._exit(BROKEN)


def _wait(pid: int, seconds: float) -> int | None:
    """The status of a process; None for one that had to be ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return status
        time.sleep(0.005)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def chosen(options: argparse.Namespace, done: dict[str, dict[str, Any]]) -> Iterator[Mutant]:
    """The mutants to try: of each module a random share, or the survivors of earlier results."""
    again = read_results(options.survivors) if options.survivors else None
    for file in options.modules:
        mutants = list({mutant.key: mutant for mutant in mutants_of(file)}.values())
        rng = random.Random(f"{options.seed} {file}")
        rng.shuffle(mutants)  # so that a larger share holds all of a smaller one
        for mutant in sorted(mutants[: round(options.share * len(mutants))], key=lambda each: each.line):
            if mutant.key in done:
                continue
            if again is None or again.get(mutant.key, {}).get("verdict") in ("survived", "not reached"):
                yield mutant


def read_results(file: Path) -> dict[str, dict[str, Any]]:
    """What became of each mutant, by its key."""
    if not file.exists():
        return {}
    rows = (json.loads(line) for line in file.read_text().splitlines())
    return {row["key"]: row for row in rows}


# ---------------------------------------------------------------- commands


def pytest_run(arguments: list[str], plugin: object | None, work: Path | None = None) -> int:
    """Without shrinking or a memory of failures, so that a failure is quick and the same each time."""
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    hypothesis.settings.register_profile(
        "mutation", phases=phases, database=None, derandomize=True, deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    options = ["-q", "-x", "-s", "-p", "no:cacheprovider", "--hypothesis-profile=mutation"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    options += [f"--basetemp={work / 'tmp'}"] if work else []
    return int(pytest.main([*options, *arguments], plugins=[plugin] if plugin else []))


def table(results: dict[str, dict[str, Any]]) -> str:
    """What became of the mutants, module by module."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in results.values():
        counts[row["key"].split()[0]][row["verdict"]] += 1
    rows = [*sorted(counts.items()), ("all", sum(counts.values(), Counter[str]()))]
    lines = ["| module | tried | " + " | ".join(VERDICTS) + " | noticed |", "|---|" + "---:|" * 6]
    for name, row in rows:
        noticed = f"{100 * (row['killed'] + row['timed out']) / row.total():.1f} %"
        cells = [name, row.total(), *(row[verdict] for verdict in VERDICTS), noticed]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main() -> int:
    if sys.argv[1:2] == ["alone"]:
        module, source, *tests = sys.argv[2:]
        sys.meta_path.insert(0, Replaced(module, Path(source).read_text()))
        return pytest_run(tests, None)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/mutation"), help="folder for what is found")
    commands = parser.add_subparsers(dest="command", required=True)
    record = commands.add_parser("record", help="which tests reach which line")
    record.add_argument("tests", nargs="+")
    attempt = commands.add_parser("try", help="run the mutants")
    attempt.add_argument("modules", nargs="+")
    attempt.add_argument("--share", type=float, default=1.0, help="of each module's mutants, drawn at random")
    attempt.add_argument("--seed", type=int, default=0)
    attempt.add_argument("--seconds", type=float, default=3.0, help="of tests for each mutant")
    attempt.add_argument("--survivors", type=Path, help="only those that survived in these results")
    attempt.add_argument("--results", type=Path, required=True, help="file that is added to, a line a mutant")
    show = commands.add_parser("table", help="what became of the mutants")
    show.add_argument("results", type=Path)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    if options.command == "table":
        print(table(read_results(options.results)))
        return 0
    if options.command == "record":
        return pytest_run(options.tests, Recorder(options.work), options.work)
    tests = {test.partition("::")[0] for test in Reach(options.work).seconds}
    return pytest_run(sorted(tests), Trial(options), options.work)


if __name__ == "__main__":
    sys.exit(main())
