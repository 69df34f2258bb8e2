"""What the tests of deploy/ share: where things are, the real program as judge of settings, the secrets of an installation."""

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
PLACE = ROOT / "target/deploy-test"
BINARIES = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug"
PROGRAMS = ["sluice", "api", "streamserver", "scheduler"]
# What others read in a process of ours; everything else has to be a setting.
OTHERS = {"AWS_REGION", "AWS_ENDPOINT_URL_S3", "AWS_SHARED_CREDENTIALS_FILE"}


def run(*command, **options):
    """Standard output; what went wrong is in the exception's text."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def skip_aloud(test, reason):
    print(f"\ndeploy/test: {test.id()} left out: {reason}", file=sys.stderr)
    test.skipTest(reason)


@cache
def settings():
    """Name to default, as the program knows them."""
    lines = [line.split() for line in run(BINARIES / "sluice", "settings", env={}).splitlines()]
    known = {name: default for name, default, *_ in lines}
    # The words LIMITS and JOBS may be left out.
    return known | {re.sub("^SLUICE_(LIMITS|JOBS)_", "SLUICE_", name): default for name, default in known.items()}


@cache
def sample_defaults():
    """Key to default of the documented sample: `drain_s_max`, `task_memory_bytes_max`, …"""
    text = (ROOT / "sluice.sample.toml").read_text()
    return {found[1]: found[2].strip('"') for found in re.finditer(r"^#([a-z0-9_]+) = (.*)$", text, re.M)}


def drain_s_max():
    return int(sample_defaults()["drain_s_max"])


@cache
def version():
    return tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]


@cache
def image_environment():
    """ENV of the image: every container of ours starts from it."""
    from dockerfile_parse import DockerfileParser

    with tempfile.TemporaryDirectory() as folder:
        parser = DockerfileParser(path=folder)
        parser.content = (DEPLOY / "image/Containerfile").read_text()
        return dict(parser.envs)


@cache
def secrets():
    """A folder as deploy/make-secrets leaves it; the object keeps it alive."""
    folder = tempfile.TemporaryDirectory(prefix="sluice-secrets-")
    run(DEPLOY / "make-secrets", folder.name)
    return folder


def secret_names():
    return set(os.listdir(secrets().name))


def check_environment(test, where, environment):
    """`environment` of a process of ours: every name is known, and the real program takes every value. Files of secrets are those
    that deploy/make-secrets makes."""
    known = settings()
    real = {}
    for name, value in environment.items():
        setting = name.removesuffix("_FILE") if name not in OTHERS else name
        test.assertTrue(setting in known or name in OTHERS, f"{where}: {name} is no setting")
        if name.endswith("_FILE"):
            test.assertIn(Path(value).name, secret_names(), f"{where}: {name}={value}")
            value = f"{secrets().name}/{Path(value).name}"
        real[name] = str(value)
    done = subprocess.run([BINARIES / "sluice", "settings"], env=real, capture_output=True, text=True)
    test.assertEqual((done.returncode, done.stderr), (0, ""), where)
