"""Overlays as kubectl renders them: against the schemas of Kubernetes and KEDA, and against one another."""

import json
import os
import re
import shutil
import subprocess
import tempfile
import unittest
import uuid
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import kubernetes_validate
import tomllib
import yaml

from support import BINARIES, DEPLOY, PLACE, check_environment, drain_s_max, image_environment, run, sample_defaults, secrets
from support import skip_aloud, version

OVERLAYS = ["local", "s3", "ha"]
# The oldest that has everything used here, and the newest there is a schema for.
VERSIONS = ["1.25", "1.37"]
SERVICES = ["api", "streamserver", "scheduler", "encode"]


@cache
def rendered(overlay):
    return list(yaml.safe_load_all(run("kubectl", "kustomize", DEPLOY / "kubernetes/overlays" / overlay)))


@cache
def secret_keys():
    """Name to keys of the Secrets that deploy/kubernetes/secrets prints; made without a cluster."""
    printed = yaml.safe_load_all(run(DEPLOY / "kubernetes/secrets", secrets().name))
    return {manifest["metadata"]["name"]: set(manifest["data"]) for manifest in printed if manifest}


def of_kind(overlay, *kinds):
    return [manifest for manifest in rendered(overlay) if manifest["kind"] in kinds]


def workloads(overlay):
    return of_kind(overlay, "Deployment", "StatefulSet")


def ours(overlay):
    """Component to Deployment."""
    found = [manifest for manifest in of_kind(overlay, "Deployment") if label(manifest, "name") == "sluice"]
    return {label(manifest, "component"): manifest for manifest in found}


def label(manifest, name):
    return manifest["metadata"]["labels"][f"app.kubernetes.io/{name}"]


def pod(workload):
    return workload["spec"]["template"]["spec"]


def environment(overlay, workload):
    """Of the service's container, with what comes from the ConfigMap; secrets in it are stood in for."""
    container = pod(workload)["containers"][0]
    maps = {manifest["metadata"]["name"]: manifest["data"] for manifest in of_kind(overlay, "ConfigMap")}
    found = {}
    for source in container.get("envFrom", []):
        found |= maps[source["configMapRef"]["name"]]
    for variable in container["env"]:
        found[variable["name"]] = variable.get("value", "stands in for a secret")
    return found


def selects(selector, labels):
    for name, value in selector.get("matchLabels", {}).items():
        if labels.get(name) != value:
            return False
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "In", expression
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return True


def bytes_of(text):
    number, unit = re.fullmatch(r"(\d+)([KMG]i)", text).groups()
    return int(number) << {"Ki": 10, "Mi": 20, "Gi": 30}[unit]


def each():
    return [(overlay, workload) for overlay in OVERLAYS for workload in workloads(overlay)]


def each_of_ours():
    return [(overlay, component, workload) for overlay in OVERLAYS for component, workload in ours(overlay).items()]


def keda_fields(name):
    text = (PLACE / f"node_modules/@kubernetes-models/keda/keda.sh/v1alpha1/{name}.d.ts").read_text()
    return set(re.findall(r'"(\w+)"\??:', text))


class Kubernetes(unittest.TestCase):
    def test_every_overlay_has_all_services(self):
        for overlay in OVERLAYS:
            self.assertEqual(sorted(ours(overlay)), sorted(SERVICES))

    def test_every_manifest_keeps_its_schema(self):
        for overlay in OVERLAYS:
            for manifest in rendered(overlay):
                if "keda.sh" in manifest["apiVersion"]:
                    continue
                for kubernetes in VERSIONS:
                    with self.subTest(overlay=overlay, kind=manifest["kind"], name=manifest["metadata"]["name"]):
                        kubernetes_validate.validate(manifest, kubernetes, strict=True)

    def test_kedas_schemas_are_kept(self):
        manifests = [manifest for manifest in rendered("ha") if "keda.sh" in manifest["apiVersion"]]
        self.assertEqual({manifest["kind"] for manifest in manifests}, {"ScaledObject", "TriggerAuthentication"})
        lines = "\n".join(json.dumps(manifest) for manifest in manifests)
        said = run("node", DEPLOY / "test/validate-keda.mjs", PLACE, input=lines)
        self.assertEqual(len(said.splitlines()), len(manifests))
        # The schemas let unknown fields pass, the API server would drop them: the types know their names.
        (scaler,) = of_kind("ha", "ScaledObject")
        self.assertLessEqual(set(scaler["spec"]), keda_fields("ScaledObjectSpec"))
        self.assertLessEqual(set(scaler["spec"]["scaleTargetRef"]), keda_fields("ScaleTarget"))
        self.assertLessEqual(set(scaler["spec"]["advanced"]), keda_fields("AdvancedConfig"))
        for trigger in scaler["spec"]["triggers"]:
            self.assertLessEqual(set(trigger), keda_fields("ScaleTriggers"))

    def test_pods_are_hardened(self):
        for overlay, workload in each():
            with self.subTest(f"{overlay} {workload['metadata']['name']}"):
                spec = pod(workload)
                self.assertIs(spec["automountServiceAccountToken"], False)
                # With them a Service named sluice-api becomes SLUICE_API_PORT, which is no setting and stops the start.
                self.assertIs(spec["enableServiceLinks"], False)
                security = spec["securityContext"]
                self.assertIs(security["runAsNonRoot"], True)
                self.assertGreater(security["runAsUser"], 0)
                self.assertEqual(security["seccompProfile"], {"type": "RuntimeDefault"})
                for container in spec["containers"] + spec.get("initContainers", []):
                    security = container["securityContext"]
                    self.assertIs(security["allowPrivilegeEscalation"], False)
                    self.assertIs(security["readOnlyRootFilesystem"], True)
                    self.assertEqual(security["capabilities"], {"drop": ["ALL"]})
                    self.assertIn("memory", container["resources"]["limits"])
                    self.assertRegex(container["image"], r":v?\d+\.\d+")
                for volume in spec.get("volumes", []):
                    if "emptyDir" in volume:
                        self.assertIn("sizeLimit", volume["emptyDir"], volume["name"])

    def test_accounts_get_no_token(self):
        for overlay in OVERLAYS:
            accounts = {manifest["metadata"]["name"]: manifest for manifest in of_kind(overlay, "ServiceAccount")}
            for account in accounts.values():
                self.assertIs(account["automountServiceAccountToken"], False)
            for deployment in ours(overlay).values():
                self.assertIn(pod(deployment)["serviceAccountName"], accounts)

    def test_images_are_of_this_version(self):
        for overlay, component, workload in each_of_ours():
            with self.subTest(f"{overlay} {component}"):
                name = "sluice" if overlay == "local" else "registry.example/sluice"
                for container in pod(workload)["containers"] + pod(workload)["initContainers"]:
                    self.assertEqual(container["image"], f"{name}:{version()}")

    def test_settings_are_known_and_taken(self):
        for overlay, component, workload in each_of_ours():
            with self.subTest(f"{overlay} {component}"):
                check_environment(self, f"{overlay} {component}", image_environment() | environment(overlay, workload))
                (migrate,) = pod(workload)["initContainers"]
                self.assertEqual(migrate["args"], ["sluice", "migrate"])
                variables = {variable["name"]: variable["value"] for variable in migrate["env"]}
                check_environment(self, f"{overlay} {component} migrate", image_environment() | variables)

    def test_every_job_kind_has_one_pool(self):
        done = subprocess.run([BINARIES / "sluice", "settings"], env={"SLUICE_JOB_KINDS": "?"}, capture_output=True, text=True)
        kinds = set(re.findall(r"\b(ingest|encode|assemble|cover|purge)\b", done.stderr))
        for overlay in OVERLAYS:
            pools = [environment(overlay, ours(overlay)[name])["SLUICE_JOB_KINDS"] for name in ("scheduler", "encode")]
            self.assertEqual(sorted(",".join(pools).split(",")), sorted(kinds))
            self.assertEqual(set(pools[1].split(",")), {"encode", "assemble"})

    def test_probes_ask_the_ops_listener(self):
        ports = {"http": "SLUICE_LISTEN", "ops": "SLUICE_OPS_LISTEN"}
        ports = {name: int(image_environment()[setting].rpartition(":")[2]) for name, setting in ports.items()}
        for overlay, component, workload in each_of_ours():
            with self.subTest(f"{overlay} {component}"):
                (container,) = pod(workload)["containers"]
                self.assertEqual({port["name"]: port["containerPort"] for port in container["ports"]}, ports)
                asked = {probe: container[f"{probe}Probe"]["httpGet"] for probe in ("startup", "liveness", "readiness")}
                paths = {"startup": "/livez", "liveness": "/livez", "readiness": "/readyz"}
                self.assertEqual(asked, {probe: {"path": path, "port": "ops"} for probe, path in paths.items()})
                # A check behind /readyz may take 2 s.
                self.assertGreater(container["readinessProbe"]["timeoutSeconds"], 2)

    def test_a_pod_may_drain(self):
        for overlay, component, workload in each_of_ours():
            with self.subTest(f"{overlay} {component}"):
                spec = pod(workload)
                (container,) = spec["containers"]
                sleep, wait_s = container["lifecycle"]["preStop"]["exec"]["command"]
                self.assertEqual(sleep, "sleep")
                self.assertGreater(spec["terminationGracePeriodSeconds"], int(wait_s) + drain_s_max())

    def test_memory_is_enough_for_a_run_of_the_transcoder(self):
        for overlay, component, workload in each_of_ours():
            with self.subTest(f"{overlay} {component}"):
                if component in ("scheduler", "encode"):
                    limit = bytes_of(pod(workload)["containers"][0]["resources"]["limits"]["memory"])
                    self.assertGreater(limit, int(sample_defaults()["task_memory_bytes_max"]))

    def test_files_that_are_named_are_mounted(self):
        keys = secret_keys()
        for overlay, workload in each():
            with self.subTest(f"{overlay} {workload['metadata']['name']}"):
                spec = pod(workload)
                maps = {manifest["metadata"]["name"]: manifest["data"] for manifest in of_kind(overlay, "ConfigMap")}
                there = {}
                for volume in spec.get("volumes", []):
                    names = [source["secret"]["name"] for source in volume.get("projected", {}).get("sources", [])]
                    names += [volume["secret"]["secretName"]] if "secret" in volume else []
                    there[volume["name"]] = set().union(*(keys[name] for name in names)) if names else set()
                    if "configMap" in volume:
                        there[volume["name"]] = set(maps[volume["configMap"]["name"]])
                claims = {claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", [])}
                for container in spec["containers"] + spec.get("initContainers", []):
                    mounts = {mount["mountPath"]: mount for mount in container.get("volumeMounts", [])}
                    self.assertTrue({mount["name"] for mount in mounts.values()} <= set(there) | claims)
                    for variable in container.get("env", []):
                        if variable["name"].endswith("_FILE"):
                            folder, _, key = variable["value"].rpartition("/")
                            self.assertIn(key, there[mounts[folder]["name"]], variable)
                        if "valueFrom" in variable:
                            reference = variable["valueFrom"]["secretKeyRef"]
                            self.assertIn(reference["key"], keys[reference["name"]])

    def test_only_api_gets_the_signing_key_and_it_gets_no_store(self):
        for overlay, component, workload in each_of_ours():
            with self.subTest(f"{overlay} {component}"):
                (volume,) = [volume for volume in pod(workload)["volumes"] if "projected" in volume]
                mounted = {source["secret"]["name"] for source in volume["projected"]["sources"]}
                if component == "api":
                    self.assertEqual(mounted, {"sluice-database", "sluice-signing-key", "sluice-link-keys"})
                else:
                    links = {"sluice-link-keys"} if component == "streamserver" else set()
                    self.assertEqual(mounted, {"sluice-database", "sluice-verifying-key", "sluice-store"} | links)

    def test_selectors_find_something(self):
        for overlay in OVERLAYS:
            pods = [(w["spec"]["template"]["metadata"]["labels"], pod(w)) for w in workloads(overlay)]
            for service in of_kind(overlay, "Service"):
                (found,) = [spec for labels, spec in pods if selects({"matchLabels": service["spec"]["selector"]}, labels)]
                names = {port["name"] for port in found["containers"][0]["ports"]}
                self.assertTrue({port["targetPort"] for port in service["spec"]["ports"]} <= names)
            budgets = of_kind(overlay, "PodDisruptionBudget")
            for workload in ours(overlay).values():
                labels = workload["spec"]["template"]["metadata"]["labels"]
                self.assertEqual(len([b for b in budgets if selects(b["spec"]["selector"], labels)]), 1)

    def test_one_address_is_shared_out_as_by_the_proxy(self):
        for overlay in OVERLAYS:
            (ingress,) = of_kind(overlay, "Ingress")
            services = {service["metadata"]["name"] for service in of_kind(overlay, "Service")}
            paths = {}
            for path in ingress["spec"]["rules"][0]["http"]["paths"]:
                self.assertIn(path["backend"]["service"]["name"], services)
                paths[path["path"]] = path["backend"]["service"]["name"]
            expected = {"/": "sluice-api", "/stream/": "sluice-streamserver", "/scheduler/": "sluice-scheduler"}
            self.assertEqual(paths, expected)

    def test_the_encode_pool_reaches_names_rows_and_objects_alone(self):
        for overlay in OVERLAYS:
            labels = ours(overlay)["encode"]["spec"]["template"]["metadata"]["labels"]
            policies = [p["spec"] for p in of_kind(overlay, "NetworkPolicy") if selects(p["spec"]["podSelector"], labels)]
            self.assertTrue(any("Egress" in policy["policyTypes"] for policy in policies))
            ports = set()
            for rule in (rule for policy in policies for rule in policy.get("egress", [])):
                # A rule without `to` is everywhere, one without `ports` is everything.
                self.assertTrue(rule["to"] and rule["ports"])
                ports |= {port["port"] for port in rule["ports"]}
                for peer in rule["to"]:
                    self.assertNotIn(peer.get("ipBlock", {}).get("cidr"), ["0.0.0.0/0", "::/0"])
                    self.assertNotEqual(peer.get("podSelector", True), {})
            outside = set() if overlay == "local" else {443}
            self.assertEqual(ports, {53, 5432, 3900} | outside)

    def test_database_and_store_of_the_overlay_are_reached(self):
        components = {"database": 5432, "store": 3900, "cache": 6379}
        for component, port in components.items():
            (workload,) = [w for w in workloads("local") if label(w, "component") == component]
            self.assertEqual([p["containerPort"] for p in pod(workload)["containers"][0]["ports"]], [port])
        settings = environment("local", ours("local")["encode"])
        garage = tomllib.loads((DEPLOY / "kubernetes/overlays/local/garage.toml").read_text())
        self.assertEqual(garage, tomllib.loads((DEPLOY / "compose/garage.toml").read_text()))
        self.assertEqual(settings["AWS_REGION"], garage["s3_api"]["s3_region"])
        hosts = [urlsplit(settings[name]).hostname for name in ("AWS_ENDPOINT_URL_S3", "REDIS_URL")]
        hosts.append(urlsplit((Path(secrets().name) / "database-url").read_text().strip()).hostname)
        services = {service["metadata"]["name"] for service in of_kind("local", "Service")}
        self.assertTrue(set(hosts) <= services, hosts)

    def test_scalers_have_targets_whose_number_is_theirs(self):
        scaled = {s["spec"]["scaleTargetRef"]["name"] for s in of_kind("ha", "HorizontalPodAutoscaler", "ScaledObject")}
        self.assertEqual(scaled, {"sluice-api", "sluice-streamserver", "sluice-encode"})
        for component, deployment in ours("ha").items():
            self.assertEqual("replicas" in deployment["spec"], deployment["metadata"]["name"] not in scaled)
            keys = [c["topologyKey"] for c in pod(deployment)["topologySpreadConstraints"]]
            self.assertEqual(keys, ["topology.kubernetes.io/zone", "kubernetes.io/hostname"], component)

    def test_the_scaled_object_goes_by_the_age_of_the_oldest_job(self):
        (scaler,) = of_kind("ha", "ScaledObject")
        (authentication,) = of_kind("ha", "TriggerAuthentication")
        (reference,) = authentication["spec"]["secretTargetRef"]
        self.assertIn(reference["key"], secret_keys()[reference["name"]])
        age, running = scaler["spec"]["triggers"]
        for trigger in (age, running):
            self.assertEqual(trigger["type"], "postgresql")
            self.assertEqual(trigger["authenticationRef"], {"name": authentication["metadata"]["name"]})
            float(trigger["metadata"]["targetQueryValue"])
        self.assertIn("min(run_at)", age["metadata"]["query"])
        slots = environment("ha", ours("ha")["encode"])["SLUICE_ENCODE_SLOTS"]
        self.assertEqual(running["metadata"]["targetQueryValue"], slots)

    def test_the_scalers_queries_run_on_the_schema(self):
        server = os.environ.get("SLUICE_TEST_POSTGRES")
        if not server:
            skip_aloud(self, "SLUICE_TEST_POSTGRES is not set (make test-scale sets it)")
        name = f"deploy_{uuid.uuid4().hex}"
        url = urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
        psql = ["psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"]
        run(*psql, server, "-c", f"CREATE DATABASE {name}")
        try:
            run(BINARIES / "sluice", "migrate", env={"DATABASE_URL": url})
            age, running = [t["metadata"]["query"] for t in of_kind("ha", "ScaledObject")[0]["spec"]["triggers"]]
            self.assertEqual([float(run(*psql, url, "-c", query)) for query in (age, running)], [0, 0])
            # Of the rows a video would have only those of its jobs matter here.
            run(*psql, url, "-c", f"SET session_replication_role = replica; {self.job_rows()}")
            self.assertAlmostEqual(float(run(*psql, url, "-c", age)), 90, delta=30)
            self.assertEqual(float(run(*psql, url, "-c", running)), 1)
        finally:
            run(*psql, server, "-c", f"DROP DATABASE {name}")

    @staticmethod
    def job_rows():
        """An encode that waits since 90 s, one that is not due, an ingest that waits since an hour, one that runs."""
        rows = [("encode", "queued", -90), ("encode", "queued", 600), ("ingest", "queued", -3600), ("assemble", "running", -60)]
        values = ", ".join(
            f"('j{number}', '{kind}', '{state}', 'v', '{{}}', (extract(epoch FROM now()) * 1000)::bigint + {due_s * 1000},"
            f" 0, 0, 'w', 1, 0, 0)"
            for number, (kind, state, due_s) in enumerate(rows)
        )
        columns = "id, kind, state, video_id, payload, run_at, attempts, token, worker, lease_until, progress, created_at"
        return f"INSERT INTO jobs ({columns}) VALUES {values}"

    def test_apply_makes_the_namespace_and_the_secrets_first(self):
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "deploy"
            shutil.copytree(DEPLOY, copy, ignore=shutil.ignore_patterns("test", "secrets" if (DEPLOY / "secrets").is_dir() else ""))
            shutil.copy(DEPLOY / "kubernetes/secrets", copy / "kubernetes/secrets")
            log = Path(folder) / "log"
            # What needs no cluster is done, what would is noted.
            stub = Path(folder) / "bin/kubectl"
            stub.parent.mkdir()
            stub.write_text(
                f'#!/bin/sh\ncase "$*" in *--dry-run=client*) exec {shutil.which("kubectl")} "$@" ;; esac\n'
                f'echo "$*" >>{log}\ncase "$*" in *"-f -") cat >/dev/null ;; esac\n'
            )
            stub.chmod(0o755)
            path = f"{stub.parent}:{os.environ['PATH']}"
            run(copy / "kubernetes/apply", "local", env=os.environ | {"PATH": path})
            said = log.read_text().splitlines()
            self.assertEqual(said[:3], ["apply -f -", "apply --namespace sluice -f -", "apply -k overlays/local"])
            waited = [f"--namespace sluice rollout status deployment/sluice-{name} --timeout=5m" for name in SERVICES]
            self.assertEqual(said[3:], waited)
            self.assertTrue((copy / "secrets/signing.pem").exists())
