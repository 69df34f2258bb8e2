#!/usr/bin/env python3
"""Time from the last byte acknowledged to `playable` and to `ready`, beside one FFmpeg command that makes the same ladder.

Both work on the same 60 s 720p H.264/AAC clip, in turns, in one run; the figures to keep are the ratios.
Writes bench/results/ingest.json. Usage: bench/ingest.py [--rounds 3] [--clip FILE]
"""
import argparse, json, os, pathlib, re, resource, signal, statistics, subprocess, sys, tempfile, time, urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
BINARY = ROOT / "target/debug/sluice"


def make_clip(path, seconds):
    """As a phone would: 30 fps, one second GOP, 8 Mbit/s, a little grain; the index at the end."""
    subprocess.run(
        ["ffmpeg", "-v", "error", "-y",
         "-f", "lavfi", "-i", f"testsrc2=size=1280x720:rate=30:duration={seconds},noise=alls=6:allf=t",
         "-f", "lavfi", "-i", f"sine=frequency=330:beep_factor=4:sample_rate=48000:duration={seconds}",
         "-c:v", "libx264", "-preset", "fast", "-profile:v", "high", "-bf", "0", "-g", "30", "-b:v", "8M", "-pix_fmt", "yuv420p",
         "-c:a", "aac", "-b:a", "192k", "-ac", "2", str(path)], check=True)


def peer(clip, folder):
    """One command: decode once, split, both rungs and the audio; original copied. Wall and CPU seconds."""
    rung = ["-c:v", "libx264", "-preset", "veryfast", "-profile:v", "high", "-pix_fmt", "yuv420p", "-crf", "23",
            "-force_key_frames", "expr:gte(t,n_forced*2)", "-sc_threshold", "0", "-c:a", "aac", "-b:a", "128k",
            "-movflags", "+cmaf+frag_keyframe+global_sidx+delay_moov+skip_trailer", "-f", "mp4"]
    command = ["ffmpeg", "-v", "error", "-y", "-i", str(clip),
               "-filter_complex", "[0:v]split=2[a][b];[a]scale=854:480:flags=bicubic[m];[b]scale=640:360:flags=bicubic[l]",
               "-map", "[m]", "-map", "0:a", *rung, "-maxrate", "1400k", "-bufsize", "2800k", f"{folder}/medium.mp4",
               "-map", "[l]", "-map", "0:a", *rung, "-maxrate", "800k", "-bufsize", "1600k", f"{folder}/low.mp4",
               "-map", "0:v", "-map", "0:a", "-c", "copy", "-movflags", "+faststart", f"{folder}/original.mp4"]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(command, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_s": time.monotonic() - start, "cpu_s": cpu}


class Server:
    """A fresh `sluice` on its own data directory and ports it picks itself."""

    def __init__(self, folder):
        environment = {"PATH": os.environ["PATH"], "SLUICE_DATA_DIR": f"{folder}/data", "SLUICE_LISTEN": "127.0.0.1:0",
                       "SLUICE_OPS_LISTEN": "127.0.0.1:0", "SLUICE_REQUESTS_PER_S_PER_CLIENT": "0",
                       "SLUICE_REQUESTS_PER_S_PER_USER": "0"}
        self.log = open(f"{folder}/log", "w+")
        self.process = subprocess.Popen([BINARY], env=environment, stdout=self.log, stderr=self.log, cwd=folder)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            found = re.search(r'"message":"listening","address":"(127\.0\.0\.1:\d+)"', open(f"{folder}/log").read())
            if found:
                self.base = f"http://{found.group(1)}"
                return
            time.sleep(0.02)
        sys.exit(f"no address within 30 s:\n{open(f'{folder}/log').read()}")

    def call(self, method, path, body=None, token=None, content_type="application/json", length=None):
        headers = {"Content-Type": content_type}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        if length is not None:
            headers["Content-Length"] = str(length)
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        request = urllib.request.Request(self.base + path, data=data, method=method, headers=headers)
        with urllib.request.urlopen(request) as answer:
            return json.loads(answer.read() or b"null")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


def ours(clip, folder):
    server = Server(folder)
    try:
        who = {"username": "bench", "password": "a-long-enough-one"}
        server.call("POST", "/api/users", who)
        token = server.call("POST", "/api/sessions", who)["token"]
        video = server.call("POST", "/api/videos", {"title": "bench"}, token)["id"]
        with open(clip, "rb") as body:
            server.call("POST", f"/stream/videos/{video}", body, token, "video/mp4", os.path.getsize(clip))
        start, playable = time.monotonic(), None
        while time.monotonic() - start < 600:
            state = server.call("GET", f"/api/videos/{video}", token=token)["state"]
            now = time.monotonic() - start
            if state in ("playable", "ready") and playable is None:
                playable = now
            if state == "ready":
                return {"playable_s": playable, "ready_s": now}
            if state in ("rejected", "failed"):
                sys.exit(f"the clip ended {state}")
            time.sleep(0.02)
        sys.exit("not ready within 600 s")
    finally:
        server.stop()


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--clip", type=pathlib.Path)
    arguments.add_argument("--seconds", type=int, default=60)
    options = arguments.parse_args()
    subprocess.run(["cargo", "build", "--quiet", "--bin", "sluice"], cwd=ROOT, check=True)
    with tempfile.TemporaryDirectory() as folder:
        clip = options.clip or pathlib.Path(folder) / "clip.mp4"
        if not options.clip:
            make_clip(clip, options.seconds)
        rounds = []
        for number in range(options.rounds):
            with tempfile.TemporaryDirectory() as a, tempfile.TemporaryDirectory() as b:
                rounds.append({"ffmpeg": peer(clip, a), "sluice": ours(clip, b)})
            print(f"round {number + 1}: {json.dumps(rounds[-1])}", flush=True)
    ratio = lambda key: statistics.median(r["sluice"][key] / r["ffmpeg"]["wall_s"] for r in rounds)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    result = {
        "command": "bench/ingest.py " + " ".join(sys.argv[1:]), "commit": commit, "cores": os.cpu_count(),
        "clip": f"{options.seconds} s 720p30 H.264/AAC" if not options.clip else options.clip.name,
        "peer": "one ffmpeg command: split, two rungs, original copied",
        "playable_to_ffmpeg_ladder": round(ratio("playable_s"), 4),
        "ready_to_ffmpeg_ladder": round(ratio("ready_s"), 3),
        "rounds": rounds,
    }
    (ROOT / "bench/results/ingest.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({k: v for k, v in result.items() if k != "rounds"}, indent=2))


main()
