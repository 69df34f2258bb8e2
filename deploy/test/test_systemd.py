"""Units: verified by systemd itself where it is installed."""

import re
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from support import BINARIES, DEPLOY, PROGRAMS, check_environment, drain_s_max, run, secret_names, skip_aloud

UNITS = sorted((DEPLOY / "systemd").iterdir())
# systemd-analyze security: 0 is closed, 10 is open.
EXPOSURE_MAX = 2.0


def lines(unit, name):
    return [line.partition("=")[2] for line in unit.read_text().splitlines() if line.startswith(f"{name}=")]


class Systemd(unittest.TestCase):
    def test_each_program_has_a_unit(self):
        started = sorted(Path(line).name for unit in UNITS for line in lines(unit, "ExecStart"))
        self.assertEqual(started, sorted(PROGRAMS))

    def test_systemd_understands_every_line(self):
        if not shutil.which("systemd-analyze"):
            skip_aloud(self, "systemd-analyze is not installed")
        with tempfile.TemporaryDirectory() as folder:
            copies = []
            for unit in UNITS:
                copy = Path(folder) / unit.name
                copy.write_text(unit.read_text().replace("/usr/lib/sluice/", f"{BINARIES}/"))
                copies.append(copy)
            # Of unknown names and values it tells, and exits with 0 all the same.
            verified = subprocess.run(["systemd-analyze", "verify", "--man=no", *copies], capture_output=True, text=True)
            self.assertEqual((verified.returncode, verified.stderr), (0, ""))
            for copy in copies:
                threshold = f"--threshold={int(EXPOSURE_MAX * 10)}"
                run("systemd-analyze", "security", "--offline=yes", "--no-pager", threshold, copy)

    def test_settings_are_known_and_taken(self):
        for unit in UNITS:
            credentials = dict(line.split(":", 1) for line in lines(unit, "LoadCredential"))
            environment = dict(line.split("=", 1) for line in lines(unit, "Environment"))
            for name, path in credentials.items():
                self.assertEqual(path, f"/etc/sluice/secrets/{name}")
                self.assertIn(name, secret_names())
            used = {value.removeprefix("%d/") for value in environment.values() if value.startswith("%d/")}
            self.assertEqual(used, set(credentials), unit.name)
            state = lines(unit, "StateDirectory")
            self.assertEqual(environment["SLUICE_DATA_DIR"], f"%S/{state[0]}", unit.name)
            check_environment(self, unit.name, environment | {"SLUICE_DATA_DIR": f"/var/lib/{state[0]}"})

    def test_a_service_is_waited_for_and_may_drain(self):
        for unit in UNITS:
            self.assertEqual(lines(unit, "Type"), ["notify"], unit.name)
            self.assertEqual(lines(unit, "DynamicUser"), ["yes"], unit.name)
            self.assertEqual(lines(unit, "Restart"), ["on-failure"], unit.name)
            self.assertGreater(int(lines(unit, "TimeoutStopSec")[0]), drain_s_max(), unit.name)
            self.assertTrue(re.fullmatch(r"\d+G", lines(unit, "MemoryMax")[0]), unit.name)
