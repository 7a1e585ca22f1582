"""Reports: what daemons answer survives the wire, and anything else is refused."""

import os

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interfiles.errors import RemoteProtocolError
from interfiles.wire.admin_reports import TokenReport
from interfiles.wire.reports import DownloadReport, decode_report, encode_report

DOWNLOAD = DownloadReport(
    id="ab" * 32,
    name="weights \x1b[2J",
    path="/data/weights",
    size=1 << 40,
    seconds=2.5,
    state="complete",
    bytes_from_peers={"alpha": 1 << 39, "beta": 5},
    bytes_local=0,
    pieces_rejected=0,
)


def test_a_report_survives_the_wire() -> None:
    assert decode_report(encode_report(DOWNLOAD), DownloadReport) == DOWNLOAD


def test_a_path_that_is_not_utf_8_survives_the_wire() -> None:
    report = msgspec.structs.replace(DOWNLOAD, path=os.fsdecode(b"/data/\xff\xfe"))
    assert os.fsencode(decode_report(encode_report(report), DownloadReport).path) == b"/data/\xff\xfe"


def test_fields_of_a_newer_version_are_ignored() -> None:
    report = TokenReport(token="IF1-A", id="ab" * 8, expires_at=1, uses=None, name="")
    newer = msgpack.packb({**msgspec.to_builtins(report), "new": True})
    assert decode_report(newer, TokenReport) == report


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xc1", id="unused code"),
        pytest.param(b"\x80", id="no fields"),
        pytest.param(b"\x90", id="array"),
        pytest.param(b"\x81\xa5token\xa2\xff\xfe", id="bad UTF-8"),
        pytest.param(b"\x81\xa5token\x01", id="number for text"),
        pytest.param(b"\x81\xa3new" + b"\x91" * 100_000 + b"\x00", id="nested too deep"),
        pytest.param(b"\xdd\xff\xff\xff\xff", id="array of 4 billion"),
        pytest.param(encode_report(DOWNLOAD), id="another report"),
        pytest.param(encode_report(DOWNLOAD)[:-1], id="truncated"),
    ],
)
def test_another_payload_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="the daemon's answer is not a TokenReport"):
        decode_report(data, TokenReport)


@given(st.binary(max_size=100))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_report(noise, TokenReport)
