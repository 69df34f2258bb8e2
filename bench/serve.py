#!/usr/bin/env python3
"""What is watched, beside peers, in turns, in one run: segments of about 4 MiB, random ranges of 1 MiB of a film of 200 MiB, and a
cover of about 30 kB, to 64 and to 512 connections of wrk on the same cores. Segments are those of a film whose tracks are files of
their own, as all have that we encode or copy, and once more (`referenced`) of an MP4, which are put together of the upload's samples.

The peers send files that hold the same bytes: nginx (sendfile, two workers, open_file_cache) and Go's http.ServeContent. Ours is the
release build, as it is deployed: all in one program, and the streamserver alone, as one of many machines has it; with everything that
stands before an answer: a line in the log (the peers write none), limits, metrics, whether the video is there and who may see it.

Where there is an S3 server, one more streamserver has the same film there, and in memory since somebody watched it: its rows say
how it compares with the one whose film lies on the disk.

Writes bench/results/serve.json. Usage: [scripts/servers run] bench/serve.py [--rounds 3] [--seconds 3] [--loads segments,referenced,ranges,small]
Needs Debian's golang-go, nginx and wrk.
"""
import argparse, collections, contextlib, itertools, json, os, pathlib, re, statistics, subprocess, sys, tempfile, urllib.request

import harness
from upload import PEERS, Peer, cpu_s, nginx

MIB = 1 << 20
CONNECTIONS = [64, 512]
LOADS = ["segments", "referenced", "ranges", "small"]
DISK, S3 = "sluice: streamserver", "sluice: streamserver, S3"
SETTINGS = {"SLUICE_JOB_KINDS": "ingest,purge", "SLUICE_STREAMS_MAX": "2000"}
# The whole film, and more.
KEPT_BYTES_MAX = 512 * MIB

# `paths`: by load, what is asked for.
Target = collections.namedtuple("Target", "pid base paths")


class Files:
    """What is asked for, by load: path of each, and its bytes."""

    def __init__(self, server):
        video = make_film(server, ".mp4")
        self.film = (f"/stream/videos/{video}", fetch(server, f"/stream/videos/{video}"))
        self.segments = {"segments": segments(server, make_film(server, ".mkv")), "referenced": segments(server, video)}
        self.cover = (f"/stream/videos/{video}/cover.jpg?w=480", fetch(server, f"/stream/videos/{video}/cover.jpg?w=480"))
        self.video = video

    def as_files(self, folder):
        os.makedirs(f"{folder}/files")
        for load, some in self.segments.items():
            for n, (_, content) in enumerate(some):
                pathlib.Path(folder, f"files/{load}{n}.mp4").write_bytes(content)
        pathlib.Path(folder, "files/film.mp4").write_bytes(self.film[1])
        pathlib.Path(folder, "files/cover.jpg").write_bytes(self.cover[1])
        os.chmod(folder, 0o755)

    def paths(self):
        """On our servers."""
        segments = {load: [path for path, _ in some] for load, some in self.segments.items()}
        return {**segments, "ranges": [self.film[0]], "small": [self.cover[0]]}

    def names(self):
        """Of the same on the peers."""
        segments = {load: [f"/{load}{n}.mp4" for n in range(len(some))] for load, some in self.segments.items()}
        return {**segments, "ranges": ["/film.mp4"], "small": ["/cover.jpg"]}

    def watch(self, base):
        """All of it, and whether it is the same there."""
        for path, content in [self.film, *itertools.chain(*self.segments.values()), self.cover]:
            with urllib.request.urlopen(base + path) as answer:
                assert answer.read() == content, path


def segments(server, video):
    """Seven of them: paths and bytes."""
    master = fetch(server, f"/stream/videos/{video}/master.m3u8").decode()
    playlist = re.search(r"^(\S+video\.m3u8)$", master, re.M)[1]
    folder = f"/stream/videos/{video}/{playlist.rsplit('/', 1)[0]}"
    names = re.findall(r"^([^#\s]+\.mp4)$", fetch(server, f"/stream/videos/{video}/{playlist}").decode(), re.M)
    return [(f"{folder}/{name}", fetch(server, f"{folder}/{name}")) for name in names[1:8]]


def make_film(server, suffix):
    """5.6 Mbit/s: six seconds of it are about 4 MiB."""
    part = harness.CLIPS / "serve-noaudio.mp4"
    harness.CLIPS.mkdir(parents=True, exist_ok=True)
    harness.make(part, ["ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", "testsrc2=size=1280x720:rate=30,noise=alls=20:allf=t",
                        "-t", "30", "-c:v", "libx264", "-preset", "veryfast", "-b:v", "5600k", "-maxrate", "5600k", "-bufsize",
                        "5600k", "-g", "60", "-bf", "0", "-pix_fmt", "yuv420p"])
    video, _ = server.upload(harness.looped(part, 200 * MIB, suffix))
    server.until(video, ("playable", "ready"))
    return video


def fetch(server, path):
    with urllib.request.urlopen(server.base + path) as answer:
        return answer.read()


def go(folder):
    program = harness.CLIPS / "serve-go"
    subprocess.run(["go", "build", "-o", program, PEERS / "serve.go"], check=True)
    return Peer([program, f"{folder}/files"], folder)


def script(folder, load, paths, total):
    """For wrk: takes turns, or asks for a range anywhere."""
    lines = ["local paths = {" + ", ".join(json.dumps(path) for path in paths) + "}", "local n = 0",
             "function init() math.randomseed(7) end"]
    if load == "ranges":
        lines += [f"function request() local at = math.random(0, {total - MIB}) "
                  f"return wrk.format('GET', paths[1], {{Range = 'bytes=' .. at .. '-' .. (at + {MIB - 1})}}) end"]
    else:
        lines += ["function request() n = n % #paths + 1 return wrk.format('GET', paths[n]) end"]
    path = pathlib.Path(folder, f"{load}.lua")
    path.write_text("\n".join(lines))
    return path


def run(pid, base, script_path, connections, seconds):
    memory = harness.Memory(pid)
    before = cpu_s(pid)
    memory.start()
    command = ["wrk", "-t", "2", "-c", str(connections), "-d", f"{seconds}s", "--latency", "-s", script_path, base]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    after, peak = cpu_s(pid), memory.stop()
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)|Socket errors: (.*)", text)
    requests, took, read = re.search(r"(\d+) requests in ([\d.]+)s, ([\d.]+\w+) read", text).groups()
    sent = number(read)
    if bad:
        print(f"  {bad[0]}", flush=True)
    return {"requests_per_s": int(requests) / float(took), "mb_per_s": sent / 1e6 / float(took),
            "cpu_s_per_gb": (after - before) / (sent / 1e9), "p99_ms": milliseconds(re.search(r"^ +99% +(\S+)", text, re.M)[1]),
            "peak_mib": peak / MIB, "bad": bad[0] if bad else None}


def number(text):
    value, unit = re.match(r"([\d.]+)(\w+)", text).groups()
    return float(value) * {"B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40}[unit]


def milliseconds(text):
    value, unit = re.match(r"([\d.]+)(\w+)", text).groups()
    return float(value) * {"us": 0.001, "ms": 1, "s": 1000, "m": 60000}[unit]


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--seconds", type=int, default=3)
    arguments.add_argument("--loads", type=lambda text: text.split(","), default=LOADS, help=f"of {','.join(LOADS)}")
    arguments.add_argument("--debug-build", action="store_true", help="of the profile that tests are built with")
    arguments.add_argument("--programs", help="a folder with the programs; nothing is built")
    options = arguments.parse_args()
    if unknown := set(options.loads) - set(LOADS):
        sys.exit(f"no such load: {', '.join(unknown)}; there are {', '.join(LOADS)}")
    harness.build(release=not options.debug_build, programs=options.programs)
    loads = {}
    with tempfile.TemporaryDirectory(dir=harness.CLIPS) as folder, contextlib.ExitStack() as running:
        os.chmod(folder, 0o755)
        servers, film_bytes = start(folder, running)
        for load in options.loads:
            for connections in CONNECTIONS:
                loads[f"{load}, {connections} connections"] = measure(folder, film_bytes, load, connections, servers, options)
    harness.save("serve", {"rounds": options.rounds, "seconds": options.seconds, "loads": loads})


def start(folder, running):
    """Every server by its name, and the length of the film; they end with `running`."""
    ours = running.enter_context(harness.Server(folder, **SETTINGS))
    files = Files(ours)
    files.as_files(folder)
    sizes = {load: [len(content) for _, content in some] for load, some in files.segments.items()}
    print(f"{sizes}, a film of {len(files.film[1])}, "
          f"a cover of {len(files.cover[1])} bytes", flush=True)
    servers = {}
    for name, peer in {"nginx": lambda: nginx(folder, "nginx-serve.conf"), "Go http.ServeContent": lambda: go(folder)}.items():
        peer = peer()
        running.callback(harness.end, peer.process)
        servers[name] = Target(peer.process.pid, peer.base, files.names())
    servers["sluice"] = Target(ours.process.pid, ours.base, files.paths())
    process, base = running.enter_context(ours.streamserver())
    servers[DISK] = Target(process.pid, base, files.paths())
    if settings := harness.s3():
        servers[S3] = start_on_s3(f"{folder}/s3", settings, running)
    else:
        print("SKIPPED: S3, for want of a server (scripts/servers run bench/serve.py)", flush=True)
    return servers, len(files.film[1])


def start_on_s3(folder, settings, running):
    """The program that took the film there is of no more use; the streamserver has seen all of it once."""
    os.makedirs(folder)
    taking = running.enter_context(harness.Server(folder, **SETTINGS, SLUICE_BLOCK_CACHE_BYTES_MAX=str(KEPT_BYTES_MAX), **settings))
    files = Files(taking)
    process, base = running.enter_context(taking.streamserver())
    files.watch(base)
    return Target(process.pid, base, files.paths())


def measure(folder, film_bytes, load, connections, servers, options):
    rounds = {name: [] for name in servers}
    for _ in range(options.rounds):
        for name, server in servers.items():
            lua = script(folder, load, server.paths[load], film_bytes)
            rounds[name].append(run(server.pid, server.base, lua, connections, options.seconds))
    return table(f"{load}, {connections} connections", rounds)


def table(load, rounds):
    keys = ["requests_per_s", "mb_per_s", "cpu_s_per_gb", "p99_ms", "peak_mib"]
    medians = {name: {key: statistics.median(one[key] for one in runs) for key in keys} for name, runs in rounds.items()}
    print(f"\n{load:26} {'req/s':>8} {'MB/s':>7} {'CPU s/GB':>9} {'p99 ms':>8} {'MiB':>5} {'x nginx':>8} {'CPU x nginx':>11} {'x Go':>6}"
          + (f" {'x disk':>7} {'CPU x disk':>10}" if S3 in rounds else ""))
    for name, median in medians.items():
        peers = [("nginx", "nginx"), ("Go http.ServeContent", "go"), *([(DISK, "disk")] if name == S3 else [])]
        for peer, key in peers:
            median[f"x_{key}"] = median["requests_per_s"] / medians[peer]["requests_per_s"]
            median[f"cpu_x_{key}"] = median["cpu_s_per_gb"] / medians[peer]["cpu_s_per_gb"]
        print(f"{name:26} {median['requests_per_s']:8.0f} {median['mb_per_s']:7.0f} {median['cpu_s_per_gb']:9.3f} {median['p99_ms']:8.1f} "
              f"{median['peak_mib']:5.0f} {median['x_nginx']:8.2f} {median['cpu_x_nginx']:11.2f} {median['x_go']:6.2f}"
              + (f" {median['x_disk']:7.2f} {median['cpu_x_disk']:10.2f}" if name == S3 else ""), flush=True)
    return {"medians": medians, "rounds": rounds}


if __name__ == "__main__":
    main()
