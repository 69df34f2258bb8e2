"""What the comparisons share: clips, a server of their own, the use of processor and memory by a tree of processes."""
import contextlib, hashlib, json, os, pathlib, re, resource, secrets, signal, subprocess, sys, tempfile, threading, time, urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
BINARY = ROOT / "target/debug/sluice"
CLIPS = ROOT / "target/bench"
MEDIA = pathlib.Path(os.environ.get("SLUICE_MEDIA_DIR", ROOT.parent / "shared/media"))

# Real footage, where it is there: film, phone and camera, in shares of a minute.
FOOTAGE = [("long_bbb_1080p60_51.mp4", 28), ("phone_720p_landscape_gps.mp4", 3), ("phone_vfr_1080x1440.mp4", 11),
           ("edit_list_delay1s.mp4", 8), ("long_camera_139s_noaudio.mp4", 10)]


def clip(height, seconds=60, faststart=False):
    """As a phone would: 30 fps, a keyframe a second, no B pictures, 8 or 16 Mbit/s, a little grain, AAC 192 kbit/s; the
    index at the end unless `faststart`. Real footage where there is some, else a test picture. Made once."""
    width, rate = round(height * 16 / 9), "8M" if height <= 720 else "16M"
    real = all((MEDIA / name).exists() for name, _ in FOOTAGE) and seconds == 60
    if not real:
        print(f"bench: no real footage for {seconds} s in {MEDIA}; a test picture instead", flush=True)
    encode = ["-r", "30", "-c:v", "libx264", "-preset", "fast", "-profile:v", "high", "-bf", "0", "-g", "30", "-b:v", rate,
              "-pix_fmt", "yuv420p", "-c:a", "aac", "-b:a", "192k", "-ac", "2", "-t", str(seconds)]
    if faststart:
        encode += ["-movflags", "+faststart"]
    if real:
        inputs = [word for name, share in FOOTAGE for word in ("-t", str(share), "-i", str(MEDIA / name))]
        fit = f"fps=30,scale={width}:{height}:force_original_aspect_ratio=increase:flags=bicubic,crop={width}:{height},setsar=1"
        parts = [f"[{n}:v]{fit}[v{n}]" for n in range(len(FOOTAGE))]
        joined = "".join(f"[v{n}]" for n in range(len(FOOTAGE)))
        graph = f"{';'.join(parts)};{joined}concat=n={len(FOOTAGE)}:v=1:a=0,noise=alls=4:allf=t[v]"
        source = [*inputs, "-f", "lavfi", "-i", "sine=frequency=330:beep_factor=4:sample_rate=48000",
                  "-filter_complex", graph, "-map", "[v]", "-map", f"{len(FOOTAGE)}:a"]
    else:
        source = ["-f", "lavfi", "-i", f"testsrc2=size={width}x{height}:rate=30,noise=alls=6:allf=t",
                  "-f", "lavfi", "-i", "sine=frequency=330:beep_factor=4:sample_rate=48000"]
    command = ["ffmpeg", "-v", "error", "-y", *source, *encode]
    CLIPS.mkdir(parents=True, exist_ok=True)
    path = CLIPS / f"{height}p-{hashlib.sha256(' '.join(command).encode()).hexdigest()[:12]}.mp4"
    make(path, command)
    return path


def looped(path, bytes_min, suffix=".mp4"):
    """The clip again and again without a new encode, until it has so many bytes."""
    times = -(-bytes_min // path.stat().st_size)
    long = path.with_name(f"{path.stem}-x{times}{suffix}")
    make(long, ["ffmpeg", "-v", "error", "-y", "-stream_loop", str(times - 1), "-i", str(path), "-c", "copy"])
    return long


def make(path, command):
    if not path.exists():
        part = path.with_suffix(f".part{path.suffix}")
        subprocess.run([*command, str(part)], check=True)
        part.rename(path)


def newest_ffmpeg():
    """The static FFmpeg of PyPI's imageio-ffmpeg, which has libvmaf too; kept in an environment of its own."""
    folder = CLIPS / "imageio-ffmpeg"
    if not folder.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([folder / "bin/pip", "install", "--quiet", "imageio-ffmpeg"], check=True)
    found = subprocess.run([folder / "bin/python", "-c", "import imageio_ffmpeg as i; print(i.get_ffmpeg_exe())"],
                           check=True, capture_output=True, text=True)
    return found.stdout.strip()


def version(ffmpeg):
    line = subprocess.run([ffmpeg, "-version"], check=True, capture_output=True, text=True).stdout.splitlines()[0]
    return line.split()[2]


class Memory(threading.Thread):
    """Looks every quarter of a second at what a process and all its descendants hold together (PSS)."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.peak_bytes, self.ended = pid, 0, threading.Event()

    def run(self):
        while not self.ended.wait(0.25):
            self.peak_bytes = max(self.peak_bytes, sum(pss(pid) for pid in [self.pid, *descendants(self.pid)]))

    def stop(self):
        self.ended.set()
        self.join()
        return self.peak_bytes


def descendants(pid):
    found = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            for child in open(f"/proc/{pid}/task/{task}/children").read().split():
                found += [int(child), *descendants(int(child))]
    except OSError:
        pass
    return found


def pss(pid):
    try:
        return int(re.search(r"^Pss:\s+(\d+) kB", open(f"/proc/{pid}/smaps_rollup").read(), re.M)[1]) * 1024
    except (OSError, TypeError):
        return 0


def cpu_s(pid):
    """Of a process and its descendants that have ended."""
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def measured(command, **options):
    """Wall and processor seconds and peak memory of a command that must succeed."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    process = subprocess.Popen([str(word) for word in command], **options)
    memory = Memory(process.pid)
    memory.start()
    if process.wait() != 0:
        sys.exit(f"failed: {command}")
    wall, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_s": wall, "cpu_s": cpu, "peak_mib": memory.stop() / 2**20}


def listening(program, environment, log_path):
    """A service that was started, and where it listens."""
    with open(log_path, "w") as log:
        process = subprocess.Popen([program], env=environment, stdout=log, stderr=log, cwd=pathlib.Path(log_path).parent)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = re.search(r'"message":"listening","address":"(127\.0\.0\.1:\d+)"', open(log_path).read())
        if found:
            return process, f"http://{found.group(1)}"
        time.sleep(0.02)
    sys.exit(f"no address within 30 s:\n{open(log_path).read()}")


def end(process):
    process.send_signal(signal.SIGTERM)
    process.wait(60)


class Server:
    """A fresh `sluice` on its own data directory and ports it picks itself, with one user who is logged in."""

    def __init__(self, folder, **settings):
        self.folder = folder
        self.environment = {"PATH": os.environ["PATH"], "SLUICE_DATA_DIR": f"{folder}/data", "SLUICE_LISTEN": "127.0.0.1:0",
                            "SLUICE_OPS_LISTEN": "127.0.0.1:0", "SLUICE_REQUESTS_PER_S_PER_CLIENT": "0",
                            "SLUICE_REQUESTS_PER_S_PER_USER": "0", **settings}
        self.log = f"{folder}/log"
        self.process, self.base = listening(BINARY, self.environment, self.log)
        who = {"username": "bench", "password": "a-long-enough-one"}
        self.call("POST", "/api/users", who)
        self.token = self.call("POST", "/api/sessions", who)["token"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        end(self.process)

    @contextlib.contextmanager
    def streamserver(self):
        """One of its own over the same data: its process, and where it listens."""
        process, base = listening(BINARY.with_name("streamserver"), self.environment, f"{self.folder}/streamserver.log")
        try:
            yield process, base
        finally:
            end(process)

    def call(self, method, path, body=None, content_type="application/json", length=None):
        headers = {"Content-Type": content_type}
        if getattr(self, "token", None):
            headers["Authorization"] = f"Bearer {self.token}"
        if length is not None:
            headers["Content-Length"] = str(length)
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        request = urllib.request.Request(self.base + path, data=data, method=method, headers=headers)
        with urllib.request.urlopen(request) as answer:
            return json.loads(answer.read() or b"null")

    def upload(self, path):
        """The video's id, and the instant at which the last byte was acknowledged."""
        video = self.call("POST", "/api/videos", {"title": "bench"})["id"]
        with open(path, "rb") as body:
            self.call("POST", f"/stream/videos/{video}", body, "video/mp4", os.path.getsize(path))
        return video, time.monotonic()

    def until(self, video, states, every_s=0.01, seconds_max=900):
        """Waits for one of the states; returns the instant. Each look costs both sides a millisecond or two."""
        deadline = time.monotonic() + seconds_max
        while time.monotonic() < deadline:
            state = self.call("GET", f"/api/videos/{video}")["state"]
            if state in states:
                return time.monotonic()
            if state in ("rejected", "failed"):
                sys.exit(f"the clip ended {state}:\n{open(self.log).read()[-2000:]}")
            time.sleep(every_s)
        sys.exit(f"not {states} within {seconds_max} s")

    def download(self, video, name, to):
        with urllib.request.urlopen(f"{self.base}/stream/videos/{video}?rendition={name}") as answer, open(to, "wb") as out:
            while block := answer.read(1 << 20):
                out.write(block)


def s3():
    """Settings of a store on the S3 server of `scripts/servers`, where nothing else lies; `None` where there is none."""
    of = lambda name: os.environ.get(f"SLUICE_TEST_S3{name}")
    if not of(""):
        return None
    return {"SLUICE_STORE": f"s3://{of('_BUCKET')}/bench-{secrets.token_hex(6)}", "AWS_ENDPOINT_URL_S3": of(""), "AWS_REGION": of("_REGION"),
            "AWS_ACCESS_KEY_ID": of("_ACCESS_KEY"), "AWS_SECRET_ACCESS_KEY": of("_SECRET_KEY")}


def build(release=False, programs=None):
    """`release`: optimised, as it is deployed; the first time that takes a quarter of an hour. `programs`: a folder of what was
    built before, and nothing is."""
    global BINARY
    if programs:
        BINARY = pathlib.Path(programs).resolve() / "sluice"
        return
    subprocess.run(["cargo", "build", "--quiet", "--workspace", "--bins", *(["--release"] if release else [])], cwd=ROOT, check=True)
    if release:
        BINARY = ROOT / "target/release/sluice"


def save(name, result):
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    command = " ".join([f"bench/{pathlib.Path(sys.argv[0]).name}", *sys.argv[1:]])
    result = {"command": command, "commit": commit, "cores": os.cpu_count(), **result}
    (ROOT / f"bench/results/{name}.json").write_text(json.dumps(result, indent=2) + "\n")
