"""Uploads a clip with tuspy: tuspy_walk.py BASE TOKEN CLIP. Prints a line of JSON for each video."""

import json
import sys

import requests
from tusclient.client import TusClient

CHUNK_BYTES = 1024 * 1024

base, token, clip = sys.argv[1:]


def create_video(title):
    answer = requests.post(f"{base}/api/videos", json={"title": title}, headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 201, answer.text
    return answer.json()


def client(video, token):
    return TusClient(video["upload"]["tus_url"], headers={"Authorization": f"Bearer {token}"})


def with_checksums(video):
    metadata = {"video_id": video["id"], "filename": "clip.mp4"}
    uploader = client(video, token).uploader(clip, chunk_size=CHUNK_BYTES, metadata=metadata, upload_checksum=True)
    uploader.upload()


def without_metadata(video):
    """The header is there all the same, and empty: the token says which video it is."""
    client(video, video["upload"]["token"]).uploader(clip, chunk_size=3 * CHUNK_BYTES).upload()


def broken_off(video):
    place = client(video, video["upload"]["token"])
    first = place.uploader(clip, chunk_size=CHUNK_BYTES, upload_checksum=True)
    first.upload(stop_at=2 * CHUNK_BYTES)
    rest = place.uploader(clip, chunk_size=CHUNK_BYTES, url=first.url)
    assert rest.offset == first.offset > 0, (rest.offset, first.offset)
    rest.upload()


for way in [with_checksums, without_metadata, broken_off]:
    video = create_video(way.__name__)
    way(video)
    print(json.dumps({"way": f"tuspy, {way.__name__}", "video": video["id"]}), flush=True)
