"""compose.yaml against the Compose schema and against itself; the proxy's configuration."""

import re
import unittest

import crossplane
import tomllib
import yaml

from support import BINARIES, DEPLOY, PLACE, check_environment, drain_s_max, image_environment, run, secret_names, version

PATH = DEPLOY / "compose.yaml"


def variables():
    lines = [line for line in (DEPLOY / ".env").read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def filled(text, given):
    """`${NAME:-default}` as Compose fills it."""
    return re.sub(r"\$\{([A-Z_]+):-([^}]*)\}", lambda found: given.get(found[1]) or found[2], text)


def seconds(text):
    number, unit = re.fullmatch(r"(\d+)(s|m)", text).groups()
    return int(number) * {"s": 1, "m": 60}[unit]


class Compose(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.file = yaml.safe_load(filled(PATH.read_text(), variables()))
        cls.services = cls.file["services"]
        cls.ours = {name: service for name, service in cls.services.items() if service["image"].startswith("sluice:")}

    def test_the_schema_is_kept(self):
        run(PLACE / "venv/bin/check-jsonschema", "--builtin-schema", "vendor.compose-spec", PATH)

    def test_one_container_is_the_default_and_scale_is_the_rest(self):
        by_profile = {}
        for name, service in self.services.items():
            for profile in service["profiles"]:
                by_profile.setdefault(profile, set()).add(name)
        self.assertEqual(by_profile.pop("one"), {"sluice"})
        scale = {"migrate", "api", "streamserver", "scheduler", "proxy", "postgres", "garage", "valkey"}
        self.assertEqual(by_profile, {"scale": scale})
        self.assertEqual(variables()["COMPOSE_PROFILES"], "one")

    def test_defaults_and_env_file_agree(self):
        text = PATH.read_text()
        self.assertEqual(filled(text, {}), filled(text, variables()))
        used = set(re.findall(r"\$\{([A-Z_]+)", text))
        self.assertEqual(used | {"COMPOSE_PROFILES"}, set(variables()))
        self.assertEqual({service["image"] for service in self.ours.values()}, {f"sluice:{version()}"})

    def test_images_are_pinned(self):
        for name, service in self.services.items():
            self.assertRegex(service["image"], r":v?\d+\.\d+", name)

    def test_settings_are_known_and_taken(self):
        for name, service in self.ours.items():
            program = service.get("command", ["sluice"])[0]
            self.assertTrue((BINARIES / program).exists(), program)
            check_environment(self, name, image_environment() | service.get("environment", {}))

    def test_a_container_is_hardened_and_may_drain(self):
        for name, service in self.ours.items():
            self.assertTrue(service["read_only"], name)
            self.assertEqual(service["cap_drop"], ["ALL"], name)
            self.assertIn("no-new-privileges:true", service["security_opt"], name)
            self.assertGreater(seconds(service["stop_grace_period"]), drain_s_max(), name)

    def test_what_is_waited_for_can_be_healthy(self):
        for name, service in self.services.items():
            for needed, how in service.get("depends_on", {}).items():
                other = self.services[needed]
                self.assertTrue(set(service["profiles"]) <= set(other["profiles"]), f"{name}: {needed}")
                if how["condition"] == "service_healthy":
                    # Images of ours have a health check of their own.
                    self.assertTrue(needed in self.ours or "test" in other["healthcheck"], f"{name}: {needed}")
                else:
                    self.assertEqual((how["condition"], other["restart"]), ("service_completed_successfully", "no"))

    def test_secrets_volumes_networks_and_files_exist(self):
        for name, service in self.services.items():
            environment = service.get("environment", {})
            mounted = {f"/run/secrets/{secret}" for secret in service.get("secrets", [])}
            used = {value for key, value in environment.items() if key.endswith("_FILE")}
            self.assertEqual(mounted, used, name)
            for secret in service.get("secrets", []):
                self.assertEqual(self.file["secrets"][secret]["file"], f"secrets/{secret}")
                self.assertIn(secret, secret_names())
            for network in service.get("networks", []):
                self.assertIn(network, self.file["networks"])
            for file in service.get("env_file", []):
                self.assertIn(file["path"].removeprefix("secrets/"), secret_names())
            for volume in service.get("volumes", []):
                source = volume.partition(":")[0]
                there = (DEPLOY / source).is_file() if source.startswith("./") else source in self.file["volumes"]
                self.assertTrue(there, f"{name}: {volume}")

    def test_what_opens_media_has_no_way_out(self):
        self.assertTrue(self.file["networks"]["back"]["internal"])
        self.assertEqual(self.services["scheduler"]["networks"], ["back"])
        published = [name for name, service in self.services.items() if "ports" in service]
        self.assertEqual(sorted(published), ["proxy", "sluice"])

    def test_the_proxy_shares_out_every_route(self):
        parsed = crossplane.parse(str(DEPLOY / "compose/nginx.conf"), strict=True)
        self.assertEqual((parsed["status"], parsed["errors"]), ("ok", []))
        routes = {}
        for directive in walk(parsed["config"][0]["parsed"]):
            if directive["directive"] == "location":
                target = next(inner["args"][1] for inner in directive["block"] if inner["directive"] == "set")
                routes[directive["args"][0]] = target
        port = image_environment()["SLUICE_LISTEN"].rpartition(":")[2]
        services = {"/": "api", "/stream/": "streamserver", "/scheduler/": "scheduler"}
        self.assertEqual(routes, {path: f"http://{name}:{port}" for path, name in services.items()})

    def test_garage_is_where_the_services_look(self):
        garage = tomllib.loads((DEPLOY / "compose/garage.toml").read_text())
        settings = self.services["scheduler"]["environment"]
        self.assertEqual(settings["AWS_REGION"], garage["s3_api"]["s3_region"])
        self.assertEqual(settings["AWS_ENDPOINT_URL_S3"].rpartition(":")[2], garage["s3_api"]["api_bind_addr"].rpartition(":")[2])
        self.assertEqual(settings["SLUICE_STORE"], f"s3://{self.services['garage']['environment']['GARAGE_DEFAULT_BUCKET']}")


def walk(directives):
    for directive in directives:
        yield directive
        yield from walk(directive.get("block", []))
