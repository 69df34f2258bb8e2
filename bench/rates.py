#!/usr/bin/env python3
"""Bytes at equal quality: rungs at the rates that a look at the film chose, beside capped constant quality (CRF 23) and
beside a ladder of fixed rates, over real clips.

Plan, choice and the pictures of each rung come from the transcoder child itself; every encode is then made of the same
pictures by one FFmpeg command with the settings of ours (x264 veryfast, a keyframe every 2 s, no ceiling but the cap of
the rung), and nothing differs but rate control. Quality is VMAF v0.6.1 at the size of the rung, of every third picture, by
the static FFmpeg of PyPI's imageio-ffmpeg. The figures to keep: bytes of all clips at the same 5th percentile of all their
pictures, and at the same 5th percentile of the worst clip.

Writes bench/results/rates.md and rates.json. Usage: bench/rates.py [--seconds 4] [--clips N] [--target 85]
"""
import argparse, concurrent.futures, json, os, pathlib, resource, shutil, statistics, subprocess, tempfile, time

import harness

# As it was built when the comparison began: a build meanwhile changes nothing.
TRANSCODER = harness.CLIPS / "transcoder"
VMAF_EVERY_PICTURES = 3
CRFS = [20, 23, 26]
SHARES = [0.3, 0.6, 1.0]
# Real footage of the corpus, two of them of a variable rate, and where in it a clip begins, in seconds.
CLIPS = [("long_bbb_1080p60_51.mp4", 2), ("long_bbb_1080p60_51.mp4", 14), ("long_camera_139s_noaudio.mp4", 5),
         ("long_camera_139s_noaudio.mp4", 90), ("long_static_362s_1080p.mp4", 100), ("phone_720p_landscape_gps.mp4", 0),
         ("phone_android_rot90_720p.mp4", 0), ("vp9_opus.webm", 0), ("vp8_vorbis.webm", 0),
         ("mpeg4asp_mp3.avi", 0), ("odd_height_mpeg2.mpg", 0), ("anamorphic_sar3x2.mp4", 0), ("fragmented.mp4", 0),
         ("phone_vfr_1080x1440.mp4", 0), ("hevc8_vfr_960x540.mov", 0)]


def run(command, **options):
    return subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True,
                          **({"stdin": subprocess.DEVNULL} | options))


def child(task):
    """What the last line says."""
    ran = run([TRANSCODER], input=json.dumps(task), stdin=None, env={})
    event = json.loads(ran.stdout.splitlines()[-1])
    if event["event"] != "done":
        raise RuntimeError(event)
    return event["outcome"]


def planned(clip, folder, target):
    output = folder / "ingested"
    output.mkdir()
    outcome = child({"task": "ingest", "input": str(clip), "output": str(output), "cover_at_s": None,
                     "limits": {"duration_s_max": 7200, "pixels_max": 35389440, "streams_max": 16},
                     "settings": {"ladder": {"crf": 23.0, "rungs": [], "codecs": []}, "chunk_s": None,
                                  "planned": {"x264_preset": "veryfast", "gop_s_max": 2.0, "quality": target}}})
    plan = outcome["plan"]
    plan["rungs"] = [rung for rung in plan["rungs"] if rung["name"] != "original"]
    return plan, str(output / "facts.json")


def measure(vmaf, name, start_s, seconds, target):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        clip = folder / f"clip{pathlib.Path(name).suffix}"
        run(["ffmpeg", "-v", "error", "-ss", start_s, "-i", harness.MEDIA / name, "-t", seconds, "-map", "0:v:0", "-c", "copy", clip])
        plan, facts = planned(clip, folder, target)
        if not plan["rungs"]:
            return []
        common = {"input": str(clip), "facts": facts}
        chosen = child({"task": "choose_rate", **common, "plan": plan})["crf"]
        # The pictures of each rung, as good as without loss.
        fine = [{**rung, "crf": 1.0, "bitrate_bps_max": 400_000_000} for rung in plan["rungs"]]
        output = folder / "encoded"
        output.mkdir()
        files = child({"task": "encode_video", **common, "output": str(output), "plan": {**plan, "rungs": fine}, "chunk": 0})["files"]
        return [measure_rung(vmaf, f"{name} at {start_s} s", rung, output / file["name"], chosen, folder)
                for rung, file in zip(plan["rungs"], files)]


def measure_rung(vmaf, clip, rung, pictures, chosen, folder):
    cap = rung["bitrate_bps_max"]
    rates = {f"crf {crf}": ["-crf", crf, "-maxrate", cap, "-bufsize", 2 * cap] for crf in [*CRFS, chosen]}
    for share in SHARES:
        rate = int(share * cap)
        rates[f"fixed {share}"] = ["-b:v", rate, "-maxrate", rate, "-bufsize", 2 * rate]
    encoded, encodes = folder / "encoded.mp4", {}
    for label, rate in rates.items():
        # In the clock of the pictures: in that of a frame rate, two of a variable rate may fall on one tick.
        run(["ffmpeg", "-v", "error", "-y", "-i", pictures, "-fps_mode", "passthrough", "-enc_time_base", "-1", "-c:v", "libx264", "-preset", "veryfast", "-profile:v", "high",
             "-sc_threshold", 0, "-force_key_frames", "expr:gte(t,n_forced*2)", "-threads", 1, *rate, encoded])
        times, sizes = packets(encoded)
        if times != packets(pictures)[0]:
            raise RuntimeError(f"{clip} {rung['name']}: pictures of the encode stand beside others")
        encodes[label] = {"bytes": sum(sizes), "scores": scores(vmaf, encoded, pictures, folder)}
    duration_s = float(run(["ffprobe", "-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0", pictures]).stdout)
    print(f"{clip} {rung['name']}: crf {chosen}", flush=True)
    return {"clip": clip, "rung": rung["name"], "side": min(rung["size"].values()), "cap_bytes": cap * duration_s / 8,
            "chosen": chosen, "encodes": encodes}


def packets(path):
    """When each picture is shown after the first, in milliseconds and in that order, and how many bytes each has."""
    shown = run(["ffprobe", "-v", "error", "-select_streams", "v:0", "-show_entries", "packet=pts_time,size", "-of", "csv=p=0", path]).stdout
    pairs = sorted((float(time_s), int(size)) for time_s, size in (line.split(",")[:2] for line in shown.split()))
    return [round(1000 * (time_s - pairs[0][0])) for time_s, _ in pairs], [size for _, size in pairs]


def scores(vmaf, encoded, pictures, folder):
    log = folder / "vmaf.json"
    graph = (f"[0:v]settb=1/1000,setpts=N[a];[1:v]settb=1/1000,setpts=N[b];"
             f"[a][b]libvmaf=log_fmt=json:log_path={log}:n_subsample={VMAF_EVERY_PICTURES}")
    run([vmaf, "-v", "error", "-i", encoded, "-i", pictures, "-lavfi", graph, "-f", "null", "-"])
    return [round(frame["metrics"]["vmaf"], 2) for frame in json.loads(log.read_text())["frames"]]


def p5(scores):
    return sorted(scores)[int(0.05 * (len(scores) - 1))]


def total(rungs, choose):
    """Bytes of all, 5th percentile of all pictures, and that of the worst clip. `choose` names the encode of a rung."""
    encodes = [rung["encodes"][choose(rung)] for rung in rungs]
    pooled = [score for encode in encodes for score in encode["scores"]]
    return sum(encode["bytes"] for encode in encodes), p5(pooled), min(p5(encode["scores"]) for encode in encodes)


def at_equal(curve, wanted, of):
    """Bytes on a curve of totals where it has what is wanted, between its points; `None` outside. Above its best point the bytes
    of that: it would need more, if it came there at all."""
    points = sorted((point[of], point[0]) for point in curve)
    for (low, fewer), (high, more) in zip(points, points[1:]):
        if low <= wanted <= high:
            return fewer + (more - fewer) * (wanted - low) / max(high - low, 1e-9)
    return points[-1][1] if wanted > points[-1][0] else None


def percent(part, whole):
    return "–" if whole is None else f"{100 * (part / whole - 1):+.0f} %"


def is_capped(rung):
    """Most of what the cap allows is spent."""
    return rung["encodes"][f"crf {rung['chosen']}"]["bytes"] > 0.8 * rung["cap_bytes"]


def cost(target):
    """Processor seconds of the choice, beside those of the encode that follows, for the minute of 720p of the other comparisons."""
    clip = harness.clip(720)
    with tempfile.TemporaryDirectory() as folder:
        plan, facts = planned(clip, pathlib.Path(folder), target)
        output = pathlib.Path(folder) / "encoded"
        output.mkdir()
        common = {"input": str(clip), "facts": facts, "plan": plan}
        seconds = []
        for task in ({"task": "choose_rate", **common}, {"task": "encode_video", **common, "output": str(output), "chunk": 0}):
            before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
            child(task)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            seconds.append((after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, time.monotonic() - began))
        return seconds


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seconds", type=float, default=4)
    arguments.add_argument("--clips", type=int)
    arguments.add_argument("--target", type=float, default=85)
    arguments.add_argument("--no-cost", action="store_true")
    arguments = arguments.parse_args()
    vmaf, began = harness.newest_ffmpeg(), time.monotonic()
    shutil.copy2(harness.ROOT / "target/debug/transcoder", TRANSCODER)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        work = [pool.submit(measure, vmaf, name, start_s, arguments.seconds, arguments.target) for name, start_s in CLIPS[:arguments.clips]]
        rungs = [rung for clip in work for rung in clip.result()]
    report(rungs, arguments, time.monotonic() - began, None if arguments.no_cost else cost(arguments.target))


def report(rungs, arguments, took_s, seconds):
    short = lambda encode: {"bytes": encode["bytes"], "vmaf_mean": round(statistics.fmean(encode["scores"]), 2), "vmaf_p5": p5(encode["scores"])}
    harness.save("rates", {"target": arguments.target, "seconds": arguments.seconds, "cost_s": seconds, "rungs": [
        {**rung, "encodes": {label: short(encode) for label, encode in rung["encodes"].items()}} for rung in rungs]})
    (harness.CLIPS / "rates-scores.json").write_text(json.dumps(rungs))
    saved = json.loads((harness.ROOT / "bench/results/rates.json").read_text())
    target, chosen = arguments.target, lambda rung: f"crf {rung['chosen']}"
    lines = ["# Bytes at equal quality", "", " ".join(line.strip() for line in __doc__.split("\n\n")[1].splitlines()), "",
             f"`{saved['command']}` at {saved['commit']}, {saved['cores']} cores, {took_s:.0f} s; {arguments.seconds:g} s of each clip, target VMAF {target:g}.", "",
             "| clip | rung | fixed rate (the cap): kB | p5 | mean | CRF 23, capped: kB | p5 | mean | chosen CRF | kB | p5 | mean | |",
             "|---|---|---|---|---|---|---|---|---|---|---|---|---|"]
    for rung in rungs:
        row = [rung["clip"], f"{rung['rung']} {rung['side']}p"]
        for label in ("fixed 1.0", "crf 23", chosen(rung)):
            encode = rung["encodes"][label]
            row += [f"{rung['chosen']:g}"] * (label == chosen(rung))
            row += [f"{encode['bytes'] / 1e3:.0f}", f"{p5(encode['scores']):.1f}", f"{statistics.fmean(encode['scores']):.1f}"]
        below = p5(rung["encodes"][chosen(rung)]["scores"]) < target
        lines.append(f"| {' | '.join(row)} | {'held by the cap' if below and is_capped(rung) else 'below' if below else ''} |")
    fixed = [total(rungs, lambda rung, share=share: f"fixed {share}") for share in SHARES]
    capped = [total(rungs, lambda rung, crf=crf: f"crf {crf}") for crf in CRFS]
    lines += ["", "All rungs of all clips together:", "",
              "Against a rate control that does not come so far, its best is taken.", "",
              "| rate control | kB | p5 of all pictures | p5 of the worst clip | against fixed rates at equal p5 | … at equal worst clip | against one CRF for all at equal p5 | … at equal worst clip |",
              "|---|---|---|---|---|---|---|---|"]
    rows = [(f"fixed, {share:g} of the cap", point) for share, point in zip(SHARES, fixed)]
    rows += [(f"CRF {crf}, capped", point) for crf, point in zip(CRFS, capped)] + [("**chosen by content, capped**", total(rungs, chosen))]
    for label, (size, pooled, worst) in rows:
        against = [percent(size, at_equal(curve, value, of)) for curve in (fixed, capped) for value, of in ((pooled, 1), (worst, 2))]
        lines.append(f"| {label} | {size / 1e3:.0f} | {pooled:.1f} | {worst:.1f} | {' | '.join(against)} |")
    free = [rung for rung in rungs if not is_capped(rung)]
    found = [p5(rung["encodes"][chosen(rung)]["scores"]) for rung in free]
    lines += ["", f"Of {len(rungs)} rungs the cap holds {len(rungs) - len(free)} down; of the other {len(free)} the lowest 5th percentile is {min(found):.1f}, "
              f"and {sum(score < target for score in found)} are below {target:g} ({sum(score < target - 1 for score in found)} by more than 1)."]
    if seconds:
        (choice_s, choice_wall_s), (encode_s, encode_wall_s) = seconds
        lines += ["", f"The choice takes {choice_s:.1f} s of processor time for a minute of 720p, {100 * choice_s / encode_s:.1f} % of the "
                  f"{encode_s:.1f} s of its encode; {choice_wall_s:.1f} s and {encode_wall_s:.1f} s on the clock."]
    text = "\n".join(lines) + "\n"
    (harness.ROOT / "bench/results/rates.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
