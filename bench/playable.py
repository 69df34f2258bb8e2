#!/usr/bin/env python3
"""From the last byte of an upload to `playable`, on a disk and, where SLUICE_TEST_S3 names a server, on S3.

Writes bench/results/playable.json. Usage: bench/playable.py [--uploads 20]; with Garage: scripts/servers run bench/playable.py
"""
import argparse, math, os, tempfile

import harness

MIB = 1 << 20


def stores(folder):
    yield "disk", {}
    if endpoint := os.environ.get("SLUICE_TEST_S3"):
        variable = lambda name: os.environ[f"SLUICE_TEST_S3_{name}"]
        yield "S3", {"SLUICE_STORE": f"s3://{variable('BUCKET')}/bench-{os.getpid()}", "AWS_ENDPOINT_URL_S3": endpoint,
                     "AWS_REGION": variable("REGION"), "AWS_ACCESS_KEY_ID": variable("ACCESS_KEY"),
                     "AWS_SECRET_ACCESS_KEY": variable("SECRET_KEY")}


def times(server, clip, uploads):
    """Seconds to `playable`, ascending. Each film is deleted at once, so that its ladder is not in the way of the next."""
    found = []
    for _ in range(uploads):
        video, sent = server.upload(clip)
        found.append(server.until(video, ("playable", "ready")) - sent)
        server.call("DELETE", f"/api/videos/{video}")
    return sorted(found)


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--uploads", type=int, default=20)
    options = arguments.parse_args()
    harness.build()
    minute = harness.clip(720)
    clips = [("60 s 720p, index at the end", minute, options.uploads),
             ("60 s 720p, index in front", harness.clip(720, faststart=True), options.uploads),
             ("100 MB", harness.looped(minute, 100 * 10**6), 5), ("1 GiB", harness.looped(minute, 1024 * MIB), 5)]
    phone = harness.MEDIA / "phone_hevc_2tracks_rot90.mp4"
    if phone.exists():
        clips.append(("HEVC of a phone, 2.1 s", phone, 5))
    result = {"clips": {}}
    print(f"{'':<40}{'median s':>9}{'p95 s':>8}")
    for name, clip, uploads in clips:
        for store, settings in stores(None):
            # Encodes of the film before would share the processor with what is measured.
            with tempfile.TemporaryDirectory() as folder, harness.Server(folder, **settings) as server:
                found = times(server, clip, uploads)
            median, p95 = found[len(found) // 2], found[math.ceil(len(found) * 0.95) - 1]
            result["clips"][f"{name}, {store}"] = {"median_s": round(median, 3), "p95_s": round(p95, 3),
                                                   "uploads": uploads, "bytes": clip.stat().st_size}
            print(f"{name + ', ' + store:<40}{median:>9.3f}{p95:>8.3f}", flush=True)
    harness.save("playable", result)


main()
