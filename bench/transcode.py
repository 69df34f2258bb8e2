#!/usr/bin/env python3
"""The whole ladder of one minute, beside one FFmpeg command that makes the same: the same input, the same x264 settings and
sizes, in turns, in one run. The figures to keep are the ratios of the medians.

Ours is a server as `make run` starts it, from the last byte of the upload to `ready`: judging, covers, sound, chunks,
joining, verification, durable writes and all. Writes bench/results/transcode.json.
Usage: bench/transcode.py [--rounds 3] [--heights 720 1080] [--no-vmaf]
"""
import argparse, json, os, pathlib, re, statistics, subprocess, tempfile

import harness

# Height of the source: of each rung, size and ceiling (`domain/src/ladder.rs`).
LADDER = {720: [("medium", 854, 480, 1400), ("low", 640, 360, 800)], 1080: [("medium", 1280, 720, 2800), ("low", 640, 360, 800)]}
VMAF_EVERY_FRAMES = 6


AAC = ["-c:a", "aac", "-b:a", "128k", "-ac", "2"]


def x264(kbps):
    return ["-c:v", "libx264", "-preset", "veryfast", "-profile:v", "high", "-pix_fmt", "yuv420p", "-crf", "23", "-maxrate", f"{kbps}k",
            "-bufsize", f"{2 * kbps}k", "-force_key_frames", "expr:gte(t,n_forced*2)", "-sc_threshold", "0", "-flags", "+cgop"]


def peer(ffmpeg, clip, height, folder):
    """Decode once, split, both rungs with sound of their own; original copied; one picture."""
    rungs = LADDER[height]
    scales = ";".join(f"[s{n}]scale={w}:{h}:flags=bicubic[o{n}]" for n, (_, w, h, _) in enumerate(rungs))
    graph = f"[0:v]split={len(rungs)}" + "".join(f"[s{n}]" for n in range(len(rungs))) + ";" + scales
    fragments = ["-movflags", "+cmaf+frag_keyframe+global_sidx+delay_moov+skip_trailer", "-f", "mp4"]
    command = [ffmpeg, "-v", "error", "-nostdin", "-y", "-i", clip, "-filter_complex", graph]
    for n, (name, _, _, kbps) in enumerate(rungs):
        command += ["-map", f"[o{n}]", "-map", "0:a", *x264(kbps), *AAC, *fragments, f"{folder}/{name}.mp4"]
    command += ["-map", "0:v", "-map", "0:a", "-c", "copy", *fragments, f"{folder}/original.mp4"]
    command += ["-map", "0:v", "-frames:v", "1", "-q:v", "4", f"{folder}/cover.jpg"]
    return harness.measured(command)


def limit(ffmpeg, clip, height, folder):
    """What the work itself takes: in one thread, scaled from rung to rung, the sound once; as if shared by all cores without a
    loss. Nobody gets below it with these encoders."""
    rungs = LADDER[height]
    (_, w, h, _), (_, w2, h2, _) = rungs
    graph = f"[0:v]scale={w}:{h}:flags=bicubic,split=2[o0][s];[s]scale={w2}:{h2}:flags=bicubic[o1]"
    command = [ffmpeg, "-v", "error", "-nostdin", "-y", "-threads", "1", "-filter_complex_threads", "1", "-i", clip, "-filter_complex", graph]
    for n, (name, _, _, kbps) in enumerate(rungs):
        command += ["-map", f"[o{n}]", *x264(kbps), "-threads", "1", f"{folder}/{name}.mp4"]
    command += ["-map", "0:a", *AAC, f"{folder}/sound.mp4"]
    one = harness.measured(["taskset", "-c", "0", *command])
    return one | {"wall_s": one["cpu_s"] / os.cpu_count()}


def ours(clip, folder, slots):
    with harness.Server(folder, SLUICE_ENCODE_SLOTS=str(slots)) as server:
        before, memory = harness.cpu_s(server.process.pid), harness.Memory(server.process.pid)
        idle = harness.pss(server.process.pid)
        memory.start()
        video, sent = server.upload(clip)
        playable = server.until(video, ("playable", "ready"))
        ready = server.until(video, ("ready",), every_s=0.2)
        cpu, peak = harness.cpu_s(server.process.pid) - before, memory.stop()
        for name in ("medium", "low"):
            server.download(video, name, f"{folder}/{name}.mp4")
    return {"wall_s": ready - sent, "cpu_s": cpu, "peak_mib": peak / 2**20, "children_peak_mib": (peak - idle) / 2**20,
            "playable_s": playable - sent}


def quality(ffmpeg, clip, height, made):
    """VMAF against the source, scaled up to it as a player would; picture by picture, because times are rounded differently."""
    log = f"{made}.vmaf.json"
    numbered = "settb=1/1000,setpts=N"
    # Ours name their colours, the source and the peers do not: FFmpeg would convert one to the other's.
    unnamed = "setparams=range=unknown:color_primaries=unknown:color_trc=unknown:colorspace=unknown"
    graph = (f"[0:v]{unnamed},scale={round(height * 16 / 9)}:{height}:flags=bicubic,{numbered}[d];[1:v]{numbered}[r];"
             f"[d][r]libvmaf=n_threads=2:n_subsample={VMAF_EVERY_FRAMES}:log_fmt=json:log_path={log}")
    subprocess.run([ffmpeg, "-v", "error", "-nostdin", "-i", made, "-i", clip, "-lavfi", graph, "-fps_mode", "passthrough", "-f", "null", "-"],
                   check=True)
    scores = sorted(frame["metrics"]["vmaf"] for frame in json.load(open(log))["frames"])
    return {"vmaf_mean": statistics.fmean(scores), "vmaf_p5": scores[len(scores) // 20]}


def files(ffmpeg, clip, height, folder, vmaf):
    """Bytes of the pictures of each rung, and how good they are."""
    result = {}
    for name, *_ in LADDER[height]:
        made = f"{folder}/{name}.mp4"
        packets = subprocess.run(["ffprobe", "-v", "error", "-select_streams", "v:0", "-show_entries", "packet=size", "-of", "csv=p=0",
                                  made], check=True, capture_output=True, text=True).stdout
        result[name] = {"video_bytes": sum(int(size) for size in re.findall(r"\d+", packets))}
        if vmaf:
            result[name] |= quality(ffmpeg, clip, height, made)
    return result


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--heights", type=int, nargs="+", default=[720, 1080])
    arguments.add_argument("--no-vmaf", action="store_true")
    options = arguments.parse_args()
    harness.build()
    newest = harness.newest_ffmpeg()
    peers = {f"ffmpeg {harness.version('ffmpeg')}": "ffmpeg", f"ffmpeg {harness.version(newest)}": newest}
    result = {"peers": list(peers), "sources": {}}
    for height in options.heights:
        clip = harness.clip(height)
        runs, made = {}, {}
        for number in range(options.rounds):
            contenders = {name: lambda folder, ffmpeg=ffmpeg: peer(ffmpeg, clip, height, folder) for name, ffmpeg in peers.items()}
            contenders |= {"limit of 5.1": lambda folder: limit("ffmpeg", clip, height, folder)}
            contenders |= {f"sluice, {slots} at once": lambda folder, slots=slots: ours(clip, folder, slots) for slots in (1, 2)}
            for name, run in contenders.items():
                with tempfile.TemporaryDirectory() as folder:
                    runs.setdefault(name, []).append(run(folder))
                    print(f"{height}p, round {number + 1}, {name}: {json.dumps(runs[name][-1])}", flush=True)
                    if number == 0:
                        made[name] = files(newest, clip, height, folder, not options.no_vmaf)
        result["sources"][f"{height}p"] = summary(runs, made)
        show(f"{height}p", result["sources"][f"{height}p"])
        harness.save("transcode", result)


def summary(runs, made):
    medians = {name: {key: statistics.median(run[key] for run in rounds) for key in rounds[0]} for name, rounds in runs.items()}
    base, newest = list(medians.values())[:2]
    for name, median in medians.items():
        median["wall_to_ffmpeg"] = median["wall_s"] / base["wall_s"]
        median["wall_to_newest"] = median["wall_s"] / newest["wall_s"]
        median["cpu_to_ffmpeg"] = median["cpu_s"] / base["cpu_s"]
        median["rungs"] = made[name]
        median |= {key: round(value, 3) for key, value in median.items() if isinstance(value, float)}
    return {"medians": medians, "rounds": runs}


def show(title, result):
    print(f"\n{title:<24}{'wall s':>8}{'CPU s':>8}{'MiB':>6}{'wall':>7}{'newest':>8}{'CPU':>7}   rung: bytes, VMAF mean, 5th percentile")
    for name, m in result["medians"].items():
        rungs = "  ".join(f"{rung}: {f['video_bytes']:,} {f.get('vmaf_mean', 0):.1f} {f.get('vmaf_p5', 0):.1f}" for rung, f in m["rungs"].items())
        print(f"{name:<24}{m['wall_s']:>8.1f}{m['cpu_s']:>8.1f}{m['peak_mib']:>6.0f}{m['wall_to_ffmpeg']:>7.2f}{m['wall_to_newest']:>8.2f}"
              f"{m['cpu_to_ffmpeg']:>7.2f}   {rungs}", flush=True)


main()
