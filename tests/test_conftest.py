"""The check that stands behind every other test: an ERROR record fails the test that caused it."""

from pathlib import Path

import pytest

CONFTEST = Path(__file__).with_name("conftest.py")


def run_inner_test(pytester: pytest.Pytester, source: str) -> pytest.RunResult:
    pytester.makeconftest(CONFTEST.read_text())
    pytester.makepyfile("import structlog\nlog = structlog.get_logger()\n" + source)
    return pytester.runpytest_inprocess()


def test_an_error_record_fails_its_test_and_shows_the_traceback(pytester: pytest.Pytester) -> None:
    result = run_inner_test(
        pytester,
        """
def test_hides_a_bug():
    try:
        raise KeyError("lost")
    except KeyError:
        log.exception("bug", task="peer")
""",
    )
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["1 ERROR records were logged:", "bug task='peer'*", "*KeyError: 'lost'"])


def test_the_error_log_fixture_allows_error_records_and_shows_them(pytester: pytest.Pytester) -> None:
    result = run_inner_test(
        pytester,
        """
def test_provokes_a_bug(error_log):
    log.error("bug", task="peer")
    assert [(record["event"], record["task"]) for record in error_log.errors] == [("bug", "peer")]
""",
    )
    result.assert_outcomes(passed=1)


def test_lesser_records_and_loggers_bound_earlier_are_captured_too(pytester: pytest.Pytester) -> None:
    result = run_inner_test(
        pytester,
        """
def test_info(log_records):
    log.bind(peer="a").info("failed")
    log.debug("asked")
    assert [(record["level"], record["event"]) for record in log_records.records] == [
        ("info", "failed"), ("debug", "asked")]
""",
    )
    result.assert_outcomes(passed=1)
