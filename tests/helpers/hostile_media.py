"""Files that name other files, addresses, ports or programs, and a process that opens them all.

    python hostile_media.py BACKEND WAY FOLDER

prints the name of each file in the folder before it opens it, and afterwards how that ended.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

SECRET = "secret"
# A port that a decoder would bind, and an address that it would fetch.
_PORT, _ADDRESS = 45_678, "http://127.0.0.1:9"
WAYS = ("path", "bytes", "moment", "check", "resize")


def playlist(*entries: str) -> str:
    """An HLS playlist of segments."""
    segments = "".join(f"#EXTINF:2,\n{entry}\n" for entry in entries)
    head = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:0\n"
    return f"{head}{segments}#EXT-X-ENDLIST\n"


def write_hostile(folder: Path, secret: Path) -> None:
    """Write one file of each kind.

    Args:
        folder: What the files are written to.
        secret: Folder with `secret.mp4` and `secret.ts`, which only the files name. `folder` has
            links to both, for those that name their neighbors.
    """
    hls = playlist(f"{secret}/{SECRET}.ts", f"{SECRET}.ts")
    online = playlist(f"{_ADDRESS}/a.ts")
    concat = f"ffconcat version 1.0\nfile {SECRET}.mp4\nfile {SECRET}.ts\n"
    session = (
        "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
        f"m=video {_PORT} RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"
    )
    manifest = (
        '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'profiles="urn:mpeg:dash:profile:isoff-on-demand:2011" mediaPresentationDuration="PT2S">'
        '<Period><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1">'
        f"<BaseURL>{secret}/{SECRET}.mp4</BaseURL></Representation></AdaptationSet></Period></MPD>"
    )
    master = f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{_ADDRESS}/b.m3u8\n"
    key = f'#EXT-X-KEY:METHOD=AES-128,URI="{_ADDRESS}/key"\n'
    stream = (secret / f"{SECRET}.ts").read_bytes()
    tag = b"ID3\x04\x00\x00\x00\x00\x00\x0a" + bytes(10)  # FFmpeg skips it to find the format
    texts = {
        **{f"hls.{suffix}": hls for suffix in ("m3u8", "mp4", "ts", "mkv", "avi", "webm")},
        **{f"online.{suffix}": online for suffix in ("m3u8", "mp4", "hls")},
        "master.m3u8": master,
        "key.m3u8": online.replace("#EXTINF", f"{key}#EXTINF"),
        **{f"concat.{suffix}": concat for suffix in ("mp4", "txt", "ffconcat")},
        "online.ffconcat": f"ffconcat version 1.0\nfile '{_ADDRESS}/a.mp4'\n",
        **{f"session.{suffix}": session for suffix in ("sdp", "mp4", "mov")},
        **{f"manifest.{suffix}": manifest for suffix in ("mpd", "mp4")},
        "package.mp4": '<?xml version="1.0"?>\n<CompositionPlaylist></CompositionPlaylist>',
        "subtitles.idx": "# VobSub index file, v7\n",
        "redirect.asx": f'<asx version="3.0"><entry><ref href="{_ADDRESS}/a"/></entry></asx>',
        "secre%c.ppm": "a pattern that FFmpeg takes for the name of numbered images",
        "secret%d.ppm": "another",
    }
    for name, text in texts.items():
        (folder / name).write_bytes(text.encode())
    # What one release of FFmpeg takes for a transport stream and another for a playlist.
    (folder / "both.ts").write_bytes(online.encode() + stream)
    (folder / "both.mp4").write_bytes(hls.encode() + stream)
    (folder / "tagged.mp4").write_bytes(tag + online.encode())
    (folder / "both-tagged.ts").write_bytes(tag + online.encode() + stream)
    for name in (f"{SECRET}.mp4", f"{SECRET}.ts"):
        (folder / name).symlink_to(secret / name)
    (folder / f"{SECRET}1.ppm").symlink_to(secret / f"{SECRET}.mp4")
    (folder / "subtitles.sub").symlink_to(secret / f"{SECRET}.mp4")
    (folder / "ASSETMAP.xml").symlink_to(secret / f"{SECRET}.mp4")


def open_all(backend: str, way: str, folder: Path) -> None:
    """Open the files of a folder; what happens then is watched from outside."""
    from helpers.forbidden_calls import forbid_sockets_and_programs

    from slowfast_maskfeat.curation.check_videos import check_video
    from slowfast_maskfeat.curation.jobs import Failure
    from slowfast_maskfeat.curation.resize_videos import resize_video
    from slowfast_maskfeat.videos.decode import DecodeError, open_around, open_video
    from slowfast_maskfeat.videos.decode_options import DecodeOptions

    def result(path: Path) -> object:
        if way == "check":
            return check_video(str(path), backend=backend)
        if way == "resize":
            copy = folder.parent / "copy.mp4"
            return resize_video(str(path), copy, short_side=32, gop=8, crf=20)
        if way == "moment":
            options = DecodeOptions(backend=backend)
            return open_around(path, lambda seconds: seconds / 2, seconds=0.5, options=options)[0]
        content = path.read_bytes() if way == "bytes" else None
        with open_video(path, backend, content=content) as video:
            return video.frames([0]).shape

    files = sorted(path for path in folder.iterdir() if not path.is_symlink())
    with open_video(folder.parent / "good.mp4", backend) as video:  # what is loaded on first use
        video.frames([0])
    forbid_sockets_and_programs()
    say = partial(print, flush=True)
    for path in files:
        say(path.name, end=" ")
        try:
            outcome = result(path)
        except DecodeError as error:
            outcome = Failure(error.reason)
        say("refused" if isinstance(outcome, Failure) else f"opened {outcome}")


if __name__ == "__main__":
    open_all(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
