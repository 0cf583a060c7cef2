"""`pytest --processor-time`: what each file and test takes of the processors, whatever else runs.

Seconds of a test's process and of the processes that it started and waited for. Of a fixture that
several tests share, the first of them is charged.
"""

import collections
import os

import pytest

NAME = "processor time"
LISTED = 30


def used():
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


class ProcessorTime:
    """Measures in the processes that run tests, and adds up where reports arrive."""

    def __init__(self):
        self.before = 0.0
        self.tests = collections.Counter()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self):
        self.before = used()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item):
        try:
            return (yield)
        finally:
            item.user_properties.append((NAME, used() - self.before))

    def pytest_runtest_logreport(self, report):
        if report.when == "teardown":
            self.tests[report.nodeid] += dict(report.user_properties).get(NAME, 0.0)

    def pytest_terminal_summary(self, terminalreporter):
        files = collections.Counter()
        for test, seconds in self.tests.items():
            files[test.partition("::")[0]] += seconds
        write = terminalreporter.write_line
        terminalreporter.section(f"{self.tests.total():.0f} s of processor time")
        for counts in (files, self.tests):
            for name, seconds in counts.most_common(LISTED):
                write(f"{seconds:8.1f}  {name}")
            write("")
