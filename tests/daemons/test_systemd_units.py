"""The units: what they promise, that systemd understands them, and how much they leave exposed."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

UNITS: Final = Path(__file__).parents[2] / "daemons" / "systemd"
NAMES: Final = ("master", "client")

# Measured with systemd 252: 1.2 for the master, 1.4 for the client (10 is a service without any sandbox). systemd
# takes the threshold in tenths.
MAX_EXPOSURE_TENTHS: Final = 20

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def unit_text(name: str) -> str:
    return (UNITS / f"interfiles-{name}.service").read_text()


def settings(name: str) -> dict[str, list[str]]:
    """Every key of a unit with its values in order; continued lines joined."""
    found: dict[str, list[str]] = {}
    for line in unit_text(name).replace("\\\n", "").splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(re.sub(r"\s+", " ", value))
    return found


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("Type", "notify"),
        ("NotifyAccess", "main"),
        ("WatchdogSec", "30s"),
        ("Restart", "on-failure"),
        ("RestartSec", "5s"),
        ("StartLimitIntervalSec", "0"),
        ("User", "interfiles"),
        ("StateDirectoryMode", "0700"),
        ("UMask", "0077"),
        ("LimitNOFILE", "65536"),
        ("ProtectSystem", "strict"),
        ("PrivateTmp", "yes"),
        ("PrivateDevices", "yes"),
        ("ProtectProc", "invisible"),
        ("ProtectKernelTunables", "yes"),
        ("ProtectKernelModules", "yes"),
        ("ProtectKernelLogs", "yes"),
        ("ProtectControlGroups", "yes"),
        ("NoNewPrivileges", "yes"),
        ("CapabilityBoundingSet", ""),
        ("RestrictAddressFamilies", "AF_UNIX AF_INET AF_INET6"),
        ("RestrictNamespaces", "yes"),
        ("RestrictSUIDSGID", "yes"),
        ("LockPersonality", "yes"),
        ("MemoryDenyWriteExecute", "yes"),
        ("StandardError", "journal"),
        ("WantedBy", "multi-user.target"),
    ],
)
def test_both_units_demand(name: str, key: str, value: str) -> None:
    assert settings(name)[key] == [value]


@pytest.mark.parametrize("name", NAMES)
def test_system_calls_are_those_of_a_service_without_privileges(name: str) -> None:
    assert settings(name)["SystemCallFilter"] == ["@system-service", "~@privileged"]


@pytest.mark.parametrize("name", NAMES)
def test_state_and_executable_are_where_the_installation_puts_them(name: str) -> None:
    unit = settings(name)
    assert unit["StateDirectory"] == [f"interfiles/{name}"]
    (command,) = unit["ExecStart"]
    assert command.startswith(f"/usr/local/bin/interfiles-{name} --state %S/interfiles/{name} ")
    assert command.endswith(f" $INTERFILES_{name.upper()}_ARGS")
    assert unit["EnvironmentFile"] == [f"-/etc/interfiles/{name}.env"]


def test_the_clients_socket_lies_in_a_directory_for_its_user_alone() -> None:
    unit = settings("client")
    assert unit["RuntimeDirectory"] == ["interfiles"]
    assert unit["RuntimeDirectoryMode"] == ["0700"]
    assert "--socket %t/interfiles/client.sock" in unit["ExecStart"][0]


def test_only_the_client_sees_homes_and_writes_downloads() -> None:
    assert settings("master")["ProtectHome"] == ["yes"]
    assert "ReadWritePaths" not in settings("master")
    assert settings("client")["ProtectHome"] == ["read-only"]
    assert settings("client")["ReadWritePaths"] == ["-/srv/interfiles"]


def test_neither_daemon_sees_the_others_state() -> None:
    assert settings("master")["InaccessiblePaths"] == ["-%S/interfiles/client"]
    assert settings("client")["InaccessiblePaths"] == ["-%S/interfiles/master"]


def test_the_user_cannot_log_in() -> None:
    (line,) = [line for line in (UNITS / "interfiles.sysusers").read_text().splitlines() if not line.startswith("#")]
    assert line == 'u interfiles - "InterFiles daemons" /var/lib/interfiles /usr/sbin/nologin'


@pytest.fixture
def verifiable(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A copy of a unit whose executable exists here, as `systemd-analyze verify` asks."""
    name = request.param
    copy = tmp_path / f"interfiles-{name}.service"
    text, replaced = re.subn(r"(?m)^ExecStart=\S+", f"ExecStart={shutil.which('true')}", unit_text(name))
    assert replaced == 1
    copy.write_text(text)
    return copy


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={"LC_ALL": "C", "SYSTEMD_COLORS": "0", "PATH": "/usr/bin:/bin"},
        stdin=subprocess.DEVNULL,
        timeout=60,
    )


@needs_systemd
@pytest.mark.parametrize("verifiable", NAMES, indirect=True)
def test_systemd_understands_the_unit(verifiable: Path) -> None:
    verified = analyze("verify", "--man=no", verifiable)
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")


@needs_systemd
@pytest.mark.parametrize("verifiable", NAMES, indirect=True)
def test_the_unit_exposes_little(verifiable: Path) -> None:
    rated = analyze("security", "--no-pager", "--offline=yes", f"--threshold={MAX_EXPOSURE_TENTHS}", verifiable)
    if "unrecognized option" in rated.stderr:
        pytest.skip("this systemd-analyze cannot rate a file (it is older than 250)")
    assert rated.returncode == 0, rated.stdout + rated.stderr
    assert "Overall exposure level" in rated.stdout


@needs_systemd
@pytest.mark.parametrize("verifiable", ["client"], indirect=True)
def test_a_unit_without_its_sandbox_would_be_told(verifiable: Path) -> None:
    text = verifiable.read_text()
    verifiable.write_text(re.sub(r"(?m)^(Protect|Private|Restrict|SystemCall|Capability)\w+=.*\n", "", text))
    rated = analyze("security", "--no-pager", "--offline=yes", f"--threshold={MAX_EXPOSURE_TENTHS}", verifiable)
    assert rated.returncode != 0
