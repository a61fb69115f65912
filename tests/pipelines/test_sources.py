"""Sources of every kind, on disk and in a real S3 API, and what becomes of bad ones.

Guards against videos that are left out, taken twice or taken by chance, and one bad source that
costs all others.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors import objects
from actors.keepout import KEEP_OUT
from infra.objectstore import ObjectStore
from longreel.errors import StorageError, UsageError
from pipelines.globs import has_wildcards, pattern_regex
from pipelines.ids import Recipe
from pipelines.plan import plan_video
from pipelines.sources import SourceVideo, expand_sources

NAMES = ["a.mp4", "b/c d.MKV", "b/deep/ü#.webm", "b2/e.mov", "notes.txt", "raw/x.bin"]
RECIPE = Recipe("tiny", "0", "0", keep_ratio=0.5, fps=1.0, segment_s=30.0, silence_threshold=0.0)
HIDDEN = ["_longreel/plan.mp4", ".trash/gone.mp4", "b/._a.mp4"]


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.objectstore)])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder with videos and other things in it, on disk and in S3."""
    base = str(tmp_path)
    if request.param == "s3":
        base = f"s3://{request.getfixturevalue('bucket')}/my videos"
    for name in NAMES + HIDDEN:
        objects.write_bytes(f"{base}/{name}", name.encode())
    return base


def names(base: str, sources: Sequence[str]) -> list[str]:
    """What the sources expand to, below ``base``; all of it usable."""
    videos = expand_sources(sources).videos
    assert [video.error for video in videos] == [None] * len(videos)
    return [video.uri.removeprefix(f"{base}/") for video in videos]


def test_a_file_of_any_extension_is_taken(base: str) -> None:
    uri = f"{base}/raw/x.bin"
    found = objects.stat_object(uri)
    assert expand_sources([uri]).videos == (SourceVideo(uri, 9, found.etag, None),)


@pytest.mark.slow
def test_a_folder_gives_its_videos(base: str) -> None:
    assert names(base, [base]) == ["a.mp4", "b/c d.MKV", "b/deep/ü#.webm", "b2/e.mov"]
    assert names(base, [f"{base}/b/"]) == ["b/c d.MKV", "b/deep/ü#.webm"]
    assert names(base, [f"{base}/b"]) == ["b/c d.MKV", "b/deep/ü#.webm"]
    only = expand_sources([base], extensions=[".mov"]).videos
    assert [video.uri for video in only] == [f"{base}/b2/e.mov"]


#: Pattern -> what it matches below the folder.
GLOBS = [
    ("*.mp4", ["a.mp4"]),
    ("*", ["a.mp4", "b/c d.MKV", "b/deep/ü#.webm", "b2/e.mov"]),
    ("**", ["a.mp4", "b/c d.MKV", "b/deep/ü#.webm", "b2/e.mov"]),
    ("b*/*", ["b/c d.MKV", "b/deep/ü#.webm", "b2/e.mov"]),
    ("b?/*", ["b2/e.mov"]),
    ("**/*.webm", ["b/deep/ü#.webm"]),
    ("**/deep", ["b/deep/ü#.webm"]),
    ("[ab].mp4", ["a.mp4"]),
    ("[!b]*.mp4", ["a.mp4"]),
    ("raw/*.bin", ["raw/x.bin"]),
    ("*.txt", ["notes.txt"]),
    ("_longreel/*.mp4", ["_longreel/plan.mp4"]),
    ("_*/*.mp4", ["_longreel/plan.mp4"]),
]


@pytest.mark.slow
def test_globs(base: str) -> None:
    found = [(pattern, names(base, [f"{base}/{pattern}"])) for pattern, _ in GLOBS]
    assert found == GLOBS


def test_a_name_with_wildcards_that_exists_is_that_file(base: str) -> None:
    objects.write_bytes(f"{base}/clip [1]?.mp4", b"")
    objects.write_bytes(f"{base}/clip 1x.mp4", b"")
    assert names(base, [f"{base}/clip [1]?.mp4"]) == ["clip [1]?.mp4"]


@pytest.mark.slow
def test_duplicates_are_taken_once_in_the_order_named(base: str) -> None:
    sources = [f"{base}/b2", base, f"{base}/a.mp4", f"{base}/*.mp4"]
    assert names(base, sources) == ["b2/e.mov", "a.mp4", "b/c d.MKV", "b/deep/ü#.webm"]


def write_manifest(base: str, kind: str, uris: Sequence[str]) -> str:
    uri = f"{base}/lists/today.{kind}"
    if kind == "parquet":
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table({"id": list(range(len(uris))), "uri": list(uris)}), sink)
        objects.write_bytes(uri, sink.getvalue().to_pybytes())
    elif kind == "csv":
        lines = ["id, uri", *(f'{i},"{u}"' for i, u in enumerate(uris))]
        objects.write_bytes(uri, ("\ufeff" + "\r\n".join(lines)).encode())
    else:
        lines = [json.dumps({"id": i, "uri": u}) for i, u in enumerate(uris)]
        objects.write_bytes(uri, ("\n".join(lines) + "\n\n").encode())
    return uri


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_manifests(base: str, kind: str) -> None:
    uris = [
        "../b2/e.mov",
        f"{base}/a.mp4",
        "x y.mp4",
        "../b2/e.mov",
        "s3://other/k#.mp4",
        "",
        "gs://n/m",
    ]
    manifest = write_manifest(base, kind, uris)
    videos = expand_sources([manifest]).videos
    # Nothing is looked up: "x y.mp4" does not exist.
    assert videos[:4] == (
        SourceVideo(f"{base}/b2/e.mov", None, None),
        SourceVideo(f"{base}/a.mp4", None, None),
        SourceVideo(f"{base}/lists/x y.mp4", None, None),
        SourceVideo("s3://other/k#.mp4", None, None),
    )
    assert videos[4].error == f"NotFound: entry 6 of {manifest} has no uri"
    assert videos[5].uri == "gs://n/m"
    assert (videos[5].error or "").startswith("UnsupportedUri: ")
    assert len(videos) == 6


@pytest.mark.slow
def test_a_manifest_without_the_column_is_told(base: str, tmp_path: Path) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"url": ["a"], "id": [1]}), sink)
    contents = {
        "parquet": sink.getvalue().to_pybytes(),
        "csv": b"url,id\na,1\n",
        "jsonl": b'{"url": "a", "id": 1}\n',
    }
    for kind, content in contents.items():
        manifest = f"{base}/m.{kind}"
        objects.write_bytes(manifest, content)
        message = f"{manifest} has no column 'uri'; its columns are: url, id"
        with pytest.raises(UsageError, match=re.escape(message)):
            expand_sources([manifest, f"{base}/a.mp4"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.jsonl", b'{"uri": "a"}\n{"uri', "line 2 of .* is not JSON"),
        ("m.jsonl", b"[1]\n", "line 1 of .* is not a JSON object"),
        ("m.jsonl", b'{"uri": 3}', "holds int, not text"),
        ("m.csv", b"\xff\xfe", "is not UTF-8 text"),
        ("m.csv", b"", "its columns are: none"),
        ("m.parquet", b"PAR1 and more", "is not a readable Parquet file"),
        # A footer of zeros, which pyarrow tells as an error of the system.
        ("m.parquet", b"PAR1" + bytes(16) + b"\x10\0\0\0PAR1", "is not a readable Parquet file"),
    ],
)
def test_a_damaged_manifest_is_told(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=message):
        expand_sources([str(tmp_path / name)])


@pytest.mark.slow
def test_a_bad_source_does_not_lose_its_siblings(base: str) -> None:
    sources = [
        f"{base}/none.mp4",
        f"{base}/raw",
        f"{base}/*.xyz",
        f"{base}/none.csv",
        "gs://bucket/v.mp4",
        f"{base}/a.mp4",
    ]
    videos = expand_sources(sources).videos
    assert [video.uri for video in videos] == sources
    kinds = [video.error.split(": ")[0] if video.error else None for video in videos]
    assert kinds == ["NotFound", "NotFound", "NotFound", "NotFound", "UnsupportedUri", None]
    assert videos[1].error == f"NotFound: {base}/raw has no video files in it"
    assert videos[2].error == f"NotFound: {base}/*.xyz has no match"


def test_nothing_usable_is_a_usage_error_with_each_reason(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError) as error:
        expand_sources([f"{tmp_path}/empty", f"{tmp_path}/gone.mp4"])
    empty, gone = str(error.value).split("; ")
    assert empty == f"NotFound: {tmp_path}/empty has no video files in it"
    assert gone == f"NotFound: cannot stat {tmp_path}/gone.mp4: no such file"
    with pytest.raises(UsageError, match="no source is given"):
        expand_sources([])
    (tmp_path / "m.csv").write_text("uri\n")
    with pytest.raises(UsageError, match="has no entries"):
        expand_sources([f"{tmp_path}/m.csv"])


@pytest.mark.objectstore
def test_s3_prefixes_and_whole_buckets(bucket: str) -> None:
    for key in ("cam1-a.mp4", "cam1-b.mp4", "cam2/x.mp4", "cam20/y.mp4"):
        objects.write_bytes(f"s3://{bucket}/{key}", b"")
    root = f"s3://{bucket}"
    assert names(root, [f"{root}/cam1"]) == ["cam1-a.mp4", "cam1-b.mp4"]
    assert names(root, [f"{root}/cam2"]) == ["cam2/x.mp4"]
    assert names(root, [f"{root}/cam2*"]) == ["cam2/x.mp4", "cam20/y.mp4"]
    assert len(names(root, [root])) == len(names(root, [f"{root}/"])) == 4


@pytest.mark.objectstore
def test_s3_troubles_keep_their_kinds(
    objectstore: ObjectStore, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.mp4").touch()
    sources = [
        "s3://nobody-made-this/x",
        "s3://nobody-made-this/*.mp4",
        "s3://*/x",
        f"s3://{bucket}",
    ]
    videos = expand_sources([*sources, str(tmp_path)]).videos
    kinds = [video.error.split(":")[0] if video.error else None for video in videos]
    assert kinds == ["NoSuchBucket", "NoSuchBucket", "UnsupportedUri", "NotFound", None]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", objectstore.guest_access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", objectstore.guest_secret_key)
    for source in (f"s3://{bucket}", f"s3://{bucket}/x.mp4", f"s3://{bucket}/*"):
        denied = expand_sources([source, str(tmp_path)]).videos[0]
        assert (denied.error or "").startswith("AccessDenied: ")


def test_no_source_leads_into_what_a_job_is_kept_out_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards uploads against manifests that name them, and folders with links to them."""
    store, mine = tmp_path / "store", tmp_path / "mine"
    for folder in (store, mine):
        folder.mkdir()
        (folder / "a.mp4").touch()
        (folder / "list.csv").write_text("uri,secret\n")
    (mine / "m.jsonl").write_text(
        "\n".join(json.dumps({"uri": uri}) for uri in (f"file://{store}/a.mp4", "../store/a.mp4"))
    )
    (mine / "b.mp4").symlink_to(store / "a.mp4")
    (mine / "l.csv").symlink_to(store / "list.csv")
    monkeypatch.setenv(KEEP_OUT, str(store))
    sources = [str(mine), f"{mine}/m.jsonl", f"{tmp_path}/s*/a.mp4", f"{mine}/l*.csv"]
    videos = expand_sources(sources).videos
    found = {video.uri: plan_video(video, RECIPE)[0]["error"] for video in videos}
    assert found.pop(f"{mine}/a.mp4").startswith("Empty: ")
    assert {uri for uri in found if uri.endswith(".mp4")} == {f"{mine}/b.mp4", f"{store}/a.mp4"}
    assert len(found) == 3
    assert all("AccessDenied: " in error for error in found.values())


def test_names_that_no_row_can_hold(tmp_path: Path) -> None:
    (tmp_path / "good.mp4").touch()
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff.mp4")).touch()
    (tmp_path / "m.jsonl").write_text('{"uri": "lone\\ud800.mp4"}\n{"uri": "nul\\u0000.mp4"}')
    videos = expand_sources([str(tmp_path), f"{tmp_path}/m.jsonl", "\udcff.mp4"]).videos
    pa.array([video.uri for video in videos])
    errors = [video.error for video in videos]
    assert errors[1] is None
    assert errors[0] == f"UnsupportedUri: the name of {tmp_path}/bad\\udcff.mp4 is not UTF-8"
    assert [bool(error) for error in errors] == [True, False, True, False, True]
    assert all((error or "").isascii() for error in errors)
    # Looked at only when it is probed.
    with pytest.raises(StorageError, match="UnsupportedUri"):
        objects.stat_object(videos[3].uri)


def test_relative_paths_and_file_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a b.mp4").touch()
    monkeypatch.chdir(tmp_path)
    for source in ("a b.mp4", ".", "*.mp4", f"file://{tmp_path}/a%20b.mp4"):
        assert names(str(tmp_path), [source]) == ["a b.mp4"]


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("a/*.mp4", ["a/.mp4", "a/x.mp4"], ["a/b/x.mp4", "b/x.mp4"]),
        ("a/**/x", ["a/x", "a/b/x", "a/b/c/x"], ["ax", "a/bx"]),
        ("[!a-c]", ["d"], ["a", "b", "/"]),
        ("[]x]", ["]", "x"], ["y"]),
        ("[!]x]", ["y"], ["]", "x"]),
        ("[^a]", ["^", "a"], ["b"]),
        ("a[b", ["a[b"], ["ab"]),
        ("a.b+(c)?", ["a.b+(c)d"], ["axb+(c)d", "a.b+(c)"]),
    ],
)
def test_the_meaning_of_a_pattern(pattern: str, yes: list[str], no: list[str]) -> None:
    regex = pattern_regex(pattern)
    assert all(regex.fullmatch(text) for text in yes)
    assert not any(regex.fullmatch(text) for text in no)
    assert has_wildcards(pattern)
