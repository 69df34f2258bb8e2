#!/usr/bin/env python3
"""Uploads to a disk, beside peers, in turns, in one run: one of 1 GiB, and fifty of 20 MiB at once.

The peers: Go's io.Copy and fsync (bench/peers/upload.go), nginx's dav PUT, which makes nothing durable and stands here for
orientation, and @tus/server from npm for tus. All are sent to by curl out of memory, on the same cores. Ours is the release build, without jobs:
what is measured ends with the answer. The figures to keep are the ratios of the medians.

Writes bench/results/upload.json. Usage: bench/upload.py [--rounds 3]
Needs Debian's golang-go, nginx and curl, and npm.
"""
import argparse, concurrent.futures, contextlib, json, os, pathlib, shutil, socket, statistics, subprocess, sys, tempfile, time

import harness

MIB = 1 << 20
PEERS = harness.ROOT / "bench/peers"
LOADS = {"1 GiB": (1, 1024 * MIB), "50 x 20 MiB": (50, 20 * MIB)}


class Peer:
    """A server that prints its address, and takes PUT /name."""

    def __init__(self, command, folder, address=None):
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.base = f"http://{address or self.process.stdout.readline().strip()}"
        wait_for(self.base)

    def urls(self, count, _bytes):
        return [(["-X", "PUT"], f"{self.base}/{time.monotonic_ns()}-{n}") for n in range(count)]


class TusPeer(Peer):
    def urls(self, count, size):
        return [(PATCH, self.base + tus_create(f"{self.base}/files", size, [])) for _ in range(count)]


class Ours:
    """Without a job to run: what it does after the answer is not what is measured here."""

    def __init__(self, folder, tus):
        self.server = harness.Server(folder, SLUICE_JOB_KINDS="purge", SLUICE_UPLOAD_BYTES_MAX=str(2048 * MIB))
        self.process, self.tus = self.server.process, tus

    def urls(self, count, size):
        return [self.url(size) for _ in range(count)]

    def url(self, size):
        video = self.server.call("POST", "/api/videos", {"title": "bench"})
        bearer = ["-H", f"Authorization: Bearer {self.server.token}"]
        if not self.tus:
            return ["-X", "PUT", "-H", "Content-Type: video/mp4", *bearer], video["upload"]["url"]
        place = video["upload"]["tus_url"]
        metadata = subprocess.run(["base64", "-w0"], input=video["id"], capture_output=True, text=True).stdout
        location = tus_create(place, size, [*bearer, "-H", f"Upload-Metadata: video_id {metadata}"])
        return [*PATCH, *bearer], self.server.base + location


PATCH = ["-X", "PATCH", "-H", "Tus-Resumable: 1.0.0", "-H", "Content-Type: application/offset+octet-stream", "-H", "Upload-Offset: 0"]


def tus_create(url, size, headers):
    command = ["curl", "-sS", "-D", "-", "-o", "/dev/null", "-X", "POST", "-H", "Tus-Resumable: 1.0.0", "-H", f"Upload-Length: {size}", *headers, url]
    head = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    location = next((line.split(":", 1)[1].strip() for line in head.splitlines() if line.lower().startswith("location:")), None)
    if not location:
        sys.exit(f"no upload was made: {head}")
    return location


def wait_for(base):
    host, port = base.removeprefix("http://").split(":")
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection((host, int(port))):
            return
        time.sleep(0.02)
    sys.exit(f"{base} does not listen")


def go(folder):
    program = harness.CLIPS / "upload-go"
    subprocess.run(["go", "build", "-o", program, PEERS / "upload.go"], check=True)
    return Peer([program, folder], folder)


def nginx(folder, config_name="nginx.conf"):
    """As its configuration says, which serves the folder's `files`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = pathlib.Path(folder, "nginx.conf")
    config.write_text((PEERS / config_name).read_text().replace("FOLDER", folder).replace("PORT", str(port)))
    os.makedirs(f"{folder}/files", exist_ok=True)
    # Its workers are somebody else where we are root.
    os.chmod(folder, 0o777)
    os.chmod(f"{folder}/files", 0o777)
    return Peer(["nginx", "-p", folder, "-c", config], folder, f"127.0.0.1:{port}")


def tus_server(folder):
    place = harness.CLIPS / "peers"
    place.mkdir(parents=True, exist_ok=True)
    for name in ["package.json", "package-lock.json", ".npmrc", "tus.mjs"]:
        shutil.copy(PEERS / name, place)
    if not (place / "node_modules").exists():
        subprocess.run(["npm", "ci", "--loglevel=error"], cwd=place, check=True)
    return TusPeer(["node", place / "tus.mjs", folder], folder)


SERVERS = {"Go io.Copy + fsync": go, "nginx dav (not durable)": nginx, "@tus/server": tus_server,
           "sluice, whole": lambda folder: Ours(folder, False), "sluice, tus": lambda folder: Ours(folder, True)}


def send(arguments, url, source):
    # Files are sent from where they are in memory; `Expect` would cost a round trip.
    command = ["curl", "-sS", "-f", "-o", "/dev/null", "-H", "Expect:", "-T", source, *arguments, url]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True)


def run(server, count, source):
    size = os.path.getsize(source)
    urls = server.urls(count, size)
    pid = server.process.pid
    cpu_before, memory = cpu_s(pid), harness.Memory(pid)
    idle = memory_of(pid)
    memory.start()
    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(count) as senders:
        sent = list(senders.map(lambda url: send(*url, source), urls))
    wall = time.monotonic() - began
    for one in sent:
        if one.returncode != 0:
            sys.exit(f"an upload failed: {one.stderr}")
    gib = count * size / 1024**3
    peak = max(memory.stop(), memory_of(pid))
    return {"mb_per_s": count * size / 1e6 / wall, "cpu_s_per_gib": (cpu_s(pid) - cpu_before) / gib,
            "peak_mib": peak / MIB, "idle_mib": idle / MIB}


def memory_of(pid):
    return sum(harness.pss(one) for one in [pid, *harness.descendants(pid)])


def cpu_s(pid):
    """Of a process and its children, which here outlive the measurement."""
    return sum(harness.cpu_s(one) for one in [pid, *harness.descendants(pid)])


def measure(name, load, source):
    count, _ = LOADS[load]
    with tempfile.TemporaryDirectory(dir=harness.CLIPS) as folder:
        server = SERVERS[name](folder)
        try:
            return run(server, count, source)
        finally:
            harness.end(server.process)


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=3)
    options = arguments.parse_args()
    harness.build(release=True)
    result = {}
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        for load, (_, size) in LOADS.items():
            source = f"{memory}/upload"
            with open(source, "wb") as file:
                for _ in range(size // MIB):
                    file.write(os.urandom(MIB))
            rounds = {name: [] for name in SERVERS}
            for number in range(options.rounds):
                for name in SERVERS:
                    rounds[name].append(measure(name, load, source))
                    print(f"{load}, round {number + 1}, {name}: {json.dumps(rounds[name][-1])}", flush=True)
            result[load] = table(load, rounds)
    harness.save("upload", {"rounds": options.rounds, "loads": result})


def table(load, rounds):
    medians = {name: {key: statistics.median(one[key] for one in runs) for key in runs[0]} for name, runs in rounds.items()}
    go, tus = medians["Go io.Copy + fsync"], medians["@tus/server"]
    print(f"\n{load:26} {'MB/s':>7} {'CPU s/GiB':>10} {'peak MiB':>9} {'+ MiB':>6} {'x Go':>6} {'CPU x Go':>9} {'x @tus':>7}")
    for name, median in medians.items():
        median["x_go"] = median["mb_per_s"] / go["mb_per_s"]
        median["cpu_x_go"] = median["cpu_s_per_gib"] / go["cpu_s_per_gib"]
        median["x_tus_server"] = median["mb_per_s"] / tus["mb_per_s"]
        print(f"{name:26} {median['mb_per_s']:7.0f} {median['cpu_s_per_gib']:10.2f} {median['peak_mib']:9.0f} {median['peak_mib'] - median['idle_mib']:6.0f} "
              f"{median['x_go']:6.2f} {median['cpu_x_go']:9.2f} {median['x_tus_server']:7.2f}")
    print(flush=True)
    return {"medians": medians, "rounds": rounds}


if __name__ == "__main__":
    main()
