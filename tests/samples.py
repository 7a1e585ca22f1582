"""Reports, progress and a tracker file as a daemon would send them, for tests of whoever shows them."""

from typing import Literal

from interfiles.manifest import FileEntry
from interfiles.tracker_file import TrackerFile
from interfiles.wire.control_messages import Phase, Progress
from interfiles.wire.reports import (
    DownloadReport,
    FileReport,
    HolderReport,
    HostReport,
    LocalCopy,
    RemoveReport,
    ReplicaCount,
    ReplicasReport,
    StatReport,
    StatusReport,
    TransferReport,
    UploadReport,
    VerifyReport,
)
from tests.trees import directory

HOSTILE = "evil\x1b[2J\u202etxt\n"
HOSTILE_SHOWN = "evil\\x1b[2J\\u202etxt\\x0a"

ID = "9c41e07b2d55" + "0a" * 26
GB = 10**9
UPLOADED_AT = 1_763_802_840

TRACKER = TrackerFile(
    directory(FileEntry("big.bin", 3 << 20, False), name="weights"),
    ("10.0.0.5:4850",),
    "render-01",
    UPLOADED_AT,
    "7f3a",
).encode()
TRACKER_ID = TrackerFile.decode(TRACKER).manifest.file_id.hex()[:12]

UPLOAD = UploadReport(
    id=ID,
    name="weights",
    size=18_400_000_000,
    files=231,
    pieces=4388,
    piece_size=4 << 20,
    tracker="",
    replicas_wanted=3,
    published=True,
    seconds=4.5,
)
DOWNLOAD = DownloadReport(
    id=ID,
    name="weights",
    path="/data/weights",
    size=18_400_000_000,
    seconds=17.0,
    state="complete",
    bytes_from_peers={"render-01": 10 * GB, "render-04": 8_400_000_000},
    bytes_local=0,
    pieces_rejected=0,
)
VERIFIED = VerifyReport(
    id=ID,
    name="weights",
    path="/data/weights",
    size=18_400_000_000,
    pieces=4388,
    checked=4388,
    complete=True,
    bad_pieces=[],
    seconds=3.1,
)
REMOVED = RemoveReport(id=ID, name="weights", hosts=3, deleted=False, path="/data/weights")


def replicas_report(
    complete: int = 3, wanted: int = 3, *, hosts: int = 5, under_way: int = 0, why_not: str = ""
) -> ReplicasReport:
    return ReplicasReport(
        id=ID,
        name="weights",
        replicas_wanted=wanted,
        hosts=hosts,
        complete=complete,
        under_way=under_way,
        why_not=why_not,
    )


def progress(
    phase: Phase = "fetching",
    done: int = 9_400_000_000,
    total: int = 18_400_000_000,
    *,
    name: str = "weights",
    rate: int = 1_100_000_000,
    peers: int = 6,
    text: str = "",
) -> Progress:
    return Progress(phase, name, done, total, rate, peers, text)


def holder(
    name: str,
    zone: str,
    pieces: int,
    *,
    doing: str = "",
    host_state: str = "live",
    last_seen_s: float = 1.0,
    down: int = 0,
    up: int = 0,
    note: str = "",
    ordered: bool = False,
) -> HolderReport:
    state: Literal["complete", "partial", "none"] = "complete" if pieces == 4388 else "partial" if pieces else "none"
    return HolderReport(
        host="ab" * 16,
        name=name,
        zone=zone,
        address="10.0.0.11:4851",
        state=state,
        pieces=pieces,
        doing=doing,
        host_state=host_state,
        last_seen_s=last_seen_s,
        down=down,
        up=up,
        note=note,
        ordered=ordered,
    )


STAT = StatReport(
    id=ID,
    name="weights",
    is_directory=True,
    entries=231,
    size=18_400_000_000,
    uploaded_at=UPLOADED_AT,
    uploaded_by="render-01",
    piece_size=4 << 20,
    pieces=4388,
    hosts=[
        holder("render-01", "rack-a", 4388, up=410_000_000),
        holder("render-04", "rack-b", 4388, up=388_000_000),
        holder("render-07", "rack-b", 2237, doing="fetching", down=1_100_000_000),
        holder("render-09", "rack-c", 4388, host_state="suspect", last_seen_s=24.4),
    ],
    replicas=ReplicaCount(wanted=3, complete=3, under_way=1),
    local=LocalCopy(state="partial", pieces=2237, path="/data/weights", doing="fetching", note=""),
    complete_info=True,
)


def file_report(name: str = "weights", *, file_id: str = ID, local: Literal["complete", "none"] = "none") -> FileReport:
    return FileReport(
        id=file_id,
        name=name,
        size=18_400_000_000,
        entries=231,
        uploaded_at=UPLOADED_AT,
        uploaded_by="render-01",
        replicas_wanted=3,
        complete=2,
        partial=1,
        local=local,
    )


HOSTS = [
    HostReport(
        host="ab" * 16,
        name="render-01",
        zone="rack-a",
        address="10.0.0.11:4851",
        state="live",
        files=12,
        used=220 * GB,
        free=1_400 * GB,
        last_seen_s=2.0,
    ),
    HostReport(
        host="cd" * 16,
        name="render-09",
        zone="",
        address="10.0.0.19:4851",
        state="gone",
        files=1,
        used=512,
        free=0,
        last_seen_s=10_900.0,
    ),
]


def transfer(state: str = "fetching", *, file_id: str = ID, name: str = "weights", note: str = "") -> TransferReport:
    return TransferReport(
        id=file_id,
        name=name,
        path="/data/weights",
        state=state,
        size=18_400_000_000,
        bytes_done=9_400_000_000,
        down=1_100_000_000 if state == "fetching" else 0,
        peers=6 if state == "fetching" else 0,
        note=note,
    )


def status(*transfers: TransferReport) -> StatusReport:
    return StatusReport(
        host="ab" * 16,
        name="render-07",
        zone="rack-b",
        fleet="7f3a" * 8,
        address="10.0.0.17:4851",
        master="10.0.0.5:4850",
        master_state="connected",
        master_note="connected",
        state_directory="/srv/client",
        files=12,
        used=220 * GB,
        free=1_400 * GB,
        down=1_100_000_000,
        up=410_000_000,
        transfers=list(transfers),
    )
