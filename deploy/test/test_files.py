"""No file of deploy/ is without a test, and no name of a setting in any of them is wrong."""

import os
import re
import stat
import subprocess
import tempfile
import unittest
from pathlib import Path

from support import DEPLOY, ROOT, run, settings

# Who parses what; a file that nobody claims fails the test.
PARSED = {
    "test_image.py": ["image/*"],
    "test_compose.py": ["compose.yaml", ".env", "compose/*"],
    "test_kubernetes.py": ["kubernetes/**/*.yaml", "kubernetes/**/*.toml", "kubernetes/secrets", "kubernetes/apply"],
    "test_nginx.py": ["nginx/*"],
    "test_systemd.py": ["systemd/*"],
    "test_files.py": ["README.md", "cdn.md", "make-secrets", "test/*"],
}


def files():
    tracked = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "deploy", cwd=ROOT)
    return [ROOT / line for line in tracked.splitlines()]


class Files(unittest.TestCase):
    def test_every_file_is_parsed_by_a_test(self):
        claimed = {path for patterns in PARSED.values() for pattern in patterns for path in DEPLOY.glob(pattern)}
        self.assertEqual([str(path) for path in files() if path not in claimed], [])

    def test_every_setting_that_is_mentioned_exists(self):
        known = set(settings())
        wrong = []
        for path in files():
            if path.parent.name == "test":
                continue
            for name in re.findall(r"\b(?:SLUICE|DATABASE|REDIS|S3)_[A-Z0-9_]*[A-Z0-9]\b", path.read_text()):
                if name.removesuffix("_FILE") not in known:
                    wrong.append(f"{path.relative_to(ROOT)}: {name}")
        self.assertEqual(wrong, [])

    def test_scripts_are_sound(self):
        for path in files():
            first_line = path.read_text().partition("\n")[0]
            if first_line.startswith("#!") and "bash" in first_line:
                run("bash", "-n", path)
                self.assertTrue(os.access(path, os.X_OK), path)

    def test_files_and_targets_of_the_readme_exist(self):
        text = (DEPLOY / "README.md").read_text()
        for path in re.findall(r"\bdeploy/[A-Za-z0-9_./-]*[A-Za-z0-9]", text):
            if path != "deploy/secrets":
                self.assertTrue((ROOT / path).exists(), path)
        targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
        for target in re.findall(r"\bmake ([a-z-]+)", text):
            self.assertIn(target, targets)

    def test_secrets_are_made_once_and_for_nobody_else(self):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "secrets"
            make = [DEPLOY / "make-secrets", folder]
            run(*make)
            first = {path.name: path.read_text() for path in folder.iterdir()}
            self.assertEqual(stat.S_IMODE(folder.stat().st_mode), 0o700)
            self.assertIn(first["postgres-password"].strip(), first["database-url"])
            self.assertIn("PRIVATE KEY", first["signing.pem"])
            (folder / "database-url").write_text("postgres://mine@elsewhere/db\n")
            (folder / "admin-password").unlink()
            run(*make)
            second = {path.name: path.read_text() for path in folder.iterdir()}
            self.assertEqual(second["database-url"], "postgres://mine@elsewhere/db\n")
            self.assertNotEqual(second.pop("admin-password"), first.pop("admin-password"))
            self.assertEqual(second | {"database-url": first["database-url"]}, first)

    def test_secrets_are_never_committed(self):
        ignored = subprocess.run(["git", "check-ignore", "--quiet", "deploy/secrets/signing.pem"], cwd=ROOT)
        self.assertEqual(ignored.returncode, 0)
