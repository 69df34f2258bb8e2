"""The Containerfile: linted, compared with the repository, and its last stage acted out as far as no registry is needed."""

import fnmatch
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import tomllib
import unittest
from pathlib import Path

from dockerfile_parse import DockerfileParser

from support import BINARIES, DEPLOY, PLACE, PROGRAMS, ROOT, check_environment, image_environment, run, secrets, settings
from support import skip_aloud, version

PATH = DEPLOY / "image/Containerfile"
START_S_MAX = 30


def instructions():
    with tempfile.TemporaryDirectory() as folder:
        parser = DockerfileParser(path=folder)
        parser.content = PATH.read_text()
        return parser.structure


def of(name, wanted=None):
    """Values of an instruction, of all stages or of the one with this number."""
    stage, found = -1, []
    for instruction in instructions():
        stage += instruction["instruction"] == "FROM"
        if instruction["instruction"] == name and wanted in (None, stage):
            found.append(instruction["value"])
    return found


def packages(stage):
    (install,) = [value for value in of("RUN", stage) if "apt-get install" in value]
    words = install.partition("--no-install-recommends")[2].partition("&&")[0].split()
    return [word for word in words if word != "\\"]


def ignored(path):
    """As .dockerignore has it: the last pattern that fits decides."""
    out = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.lstrip("!").lstrip("/")
        if any(fnmatch.fnmatch(str(part), pattern) for part in [path, *path.parents]):
            out = not line.startswith("!")
    return out


class Image(unittest.TestCase):
    def test_the_linter_has_nothing_to_say(self):
        run(PLACE / "venv/bin/hadolint", "--no-color", PATH)

    def test_what_is_copied_is_there_and_sent(self):
        stages = [value.split(" AS ")[1] for value in of("FROM") if " AS " in value]
        for value in of("COPY"):
            *sources, _ = value.split()
            if sources[0].startswith("--from="):
                self.assertIn(sources[0].removeprefix("--from="), stages)
                continue
            for source in sources:
                self.assertTrue((ROOT / source).exists(), source)
                self.assertFalse(ignored(Path(source)), source)
        for kept_back in ["target/debug/sluice", "data/keys/signing.pem", "deploy/secrets/signing.pem", ".git/config", "web/dist/index.html"]:
            self.assertTrue(ignored(Path(kept_back)), kept_back)

    def test_the_whole_workspace_is_built(self):
        members = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["members"]
        copied = {word.rstrip("/") for value in of("COPY", 1) for word in value.split()}
        self.assertTrue(set(members) <= copied, set(members) - copied)
        (build,) = [value for value in of("RUN", 1) if "cargo build" in value]
        self.assertEqual(set(re.findall(r"target/release/(\w+)", build)), {*PROGRAMS, "transcoder"})

    def test_versions_are_those_of_the_workspace(self):
        rust = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["rust-version"]
        self.assertIn(f"rust:{rust}-", of("FROM")[1])
        self.assertIn(f"VERSION={version()}", of("ARG"))

    def test_libraries_are_what_setup_installs(self):
        setup = (ROOT / "scripts/setup").read_text()
        installed = re.search(r"packages_run=\(([^)]*)\)", setup)[1].split()
        self.assertTrue(set(packages(1)) <= set(installed))

    def test_ports_and_settings_agree(self):
        environment = image_environment()
        check_environment(self, "image", environment)
        ports = [environment[name].rpartition(":")[2] for name in ("SLUICE_LISTEN", "SLUICE_OPS_LISTEN")]
        self.assertEqual(of("EXPOSE"), [" ".join(ports)])
        # The defaults of the program that an image without a command runs.
        self.assertEqual(ports, [settings()[name].rpartition(":")[2] for name in ("SLUICE_LISTEN", "SLUICE_OPS_LISTEN")])
        self.assertEqual(of("VOLUME"), [environment["SLUICE_DATA_DIR"]])
        self.assertEqual((of("USER"), of("STOPSIGNAL")), (["10001:10001"], ["SIGTERM"]))
        self.assertTrue(of("HEALTHCHECK")[0].endswith('CMD ["sluice", "healthcheck"]'))

    def test_labels_and_licence(self):
        (labels,) = of("LABEL")
        for name in ("title", "source", "version", "revision", "licenses"):
            self.assertIn(f"org.opencontainers.image.{name}=", labels)
        self.assertIn("GPL", labels)
        notice = (ROOT / "NOTICE").read_text()
        self.assertTrue("container image" in notice and "libx264" in notice)

    def test_debian_has_the_packages(self):
        if not shutil.which("apt-get") or not any(Path("/var/lib/apt/lists").glob("*Packages*")):
            skip_aloud(self, "no lists of Debian packages")
        for stage in (1, 2):
            run("apt-get", "install", "--simulate", "--no-install-recommends", *packages(stage))

    def test_the_programs_find_their_libraries(self):
        """Each shared library that a program names comes from a package of the last stage, or from the C library's."""
        if not shutil.which("dpkg"):
            skip_aloud(self, "no dpkg")
        linked = set()
        for program in [*PROGRAMS, "transcoder"]:
            linked |= set(re.findall(r"NEEDED.*\[(.*)\]", run("readelf", "--dynamic", BINARIES / program)))
        paths = dict(re.findall(r"^\s*(\S+) .*=> (\S+)$", run("/sbin/ldconfig", "--print-cache"), re.M))
        for library in linked:
            # A package may still know it by its place before /lib and /usr/lib were one.
            found = os.path.realpath(paths[library])
            known = subprocess.run(["dpkg", "--search", found, found.removeprefix("/usr")], capture_output=True, text=True)
            self.assertIn(known.stdout.split(":")[0], [*packages(2), "libc6", "libgcc-s1"], library)

    def test_it_runs_as_a_stranger_on_a_read_only_root(self):
        """User 10001, a root of nothing but system libraries and our programs, a network of its own, the image's environment."""
        isolate = ["unshare", "--mount", "--net", "--ipc", "--uts"]
        if subprocess.run([*isolate, "true"], capture_output=True).returncode != 0:
            skip_aloud(self, "this user may not make namespaces")
        with tempfile.TemporaryDirectory() as folder:
            root, log = Path(folder) / "root", Path(folder) / "log"
            root.mkdir()
            script = DEPLOY / "test/in-root"
            environment = image_environment() | {"ROOT": str(root), "BINARIES": str(BINARIES), "SECRETS": secrets().name}
            environment |= {"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
            environment |= {"SLUICE_SIGNING_KEY_FILE": "/run/secrets/signing.pem"}
            environment |= {"SLUICE_ADMIN_PASSWORD_FILE": "/run/secrets/admin-password"}
            with open(log, "wb") as output:
                sluice = subprocess.Popen([*isolate, script, "sluice"], env=environment, stdout=output, stderr=output)
            try:
                self.until_healthy(sluice, environment, log)
                status = Path(f"/proc/{sluice.pid}/status").read_text()
                self.assertRegex(status, r"Uid:\s+10001\s+10001\s+10001\s+10001")
                self.assertRegex(status, r"CapEff:\s+0{16}")
                sluice.send_signal(signal.SIGTERM)
                self.assertEqual(sluice.wait(timeout=START_S_MAX), 0, log.read_text())
            finally:
                if sluice.poll() is None:
                    sluice.kill()
                    sluice.wait()

    def until_healthy(self, sluice, environment, log):
        """By the image's own health check, inside the container's network."""
        ask = ["nsenter", f"--net=/proc/{sluice.pid}/ns/net", BINARIES / "sluice", "healthcheck"]
        environment = {name: environment[name] for name in image_environment()}
        give_up = time.monotonic() + START_S_MAX
        while True:
            asked = subprocess.run(ask, env=environment, capture_output=True, text=True)
            if asked.returncode == 0:
                self.assertEqual(asked.stdout, "ok\n")
                return
            self.assertIsNone(sluice.poll(), log.read_text())
            self.assertLess(time.monotonic(), give_up, log.read_text())
            time.sleep(0.05)
