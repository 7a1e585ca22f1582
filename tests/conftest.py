"""What every test stands on: no ERROR record goes unnoticed, and hypothesis does not race a busy machine."""

from collections.abc import Iterator

import hypothesis
import pytest
import structlog
from structlog.typing import EventDict, WrappedLogger

hypothesis.settings.register_profile("interfiles", deadline=None, print_blob=True)
hypothesis.settings.load_profile("interfiles")


class LogRecords:
    """Every structlog record of one test, oldest first; `level`, `event`, its fields, and `exception` as text."""

    def __init__(self) -> None:
        self.records: list[EventDict] = []

    def __call__(self, logger: WrappedLogger, method: str, event_dict: EventDict) -> EventDict:
        """Take a record at the end of structlog's chain."""
        self.records.append(event_dict)
        raise structlog.DropEvent

    @property
    def errors(self) -> list[EventDict]:
        """The records that stand for bugs."""
        return [record for record in self.records if record["level"] in ("error", "critical")]


@pytest.fixture(autouse=True)
def log_records(request: pytest.FixtureRequest) -> Iterator[LogRecords]:
    """Capture the log, and fail the test for any ERROR record in it.

    Error boundaries turn bugs into ERROR records; so no boundary hides one from the tests.
    """
    before = structlog.get_config()
    records = LogRecords()
    structlog.configure(
        processors=[structlog.processors.add_log_level, structlog.processors.format_exc_info, records],
        wrapper_class=structlog.make_filtering_bound_logger("debug"),
        logger_factory=structlog.ReturnLoggerFactory(),
        cache_logger_on_first_use=False,
    )
    yield records
    structlog.configure(**before)
    if records.errors and "error_log" not in request.fixturenames:
        shown = "\n".join(_shown(record) for record in records.errors)
        pytest.fail(f"{len(records.errors)} ERROR records were logged:\n{shown}", pytrace=False)


@pytest.fixture
def error_log(log_records: LogRecords) -> LogRecords:
    """The captured log, for a test that provokes ERROR records and looks at them itself."""
    return log_records


def _shown(record: EventDict) -> str:
    fields = dict(record)
    event, traceback = fields.pop("event"), fields.pop("exception", "")
    return f"{event} {' '.join(f'{key}={value!r}' for key, value in fields.items())}\n{traceback}"
