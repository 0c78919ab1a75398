"""The published data sets that are known by name: their files, their places, their readers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gnn_core.data import linqs, ogb_raw, planetoid, snap, sources
from gnn_core.data.progress import Progress

Convert = Callable[[str, Path, Path, dict[str, Any], Progress], None]
NO_FILES = "or choose --dataset synthetic, which needs none"


@dataclass(frozen=True)
class Archive:
    """One published file that holds, in whatever form, all files of a data set."""

    url: str
    most_bytes: int
    # Its content -> the content of each file by name. ValueError says what is wrong with it.
    read: Callable[[bytes], dict[str, bytes]]


@dataclass(frozen=True)
class Published:
    """A data set read from files: where they may lie under the data root, and who reads them."""

    name: str
    what: str  # one line for people
    reader: str
    places: tuple[str, ...]
    files: tuple[str, ...]
    convert: Convert
    url: str = ""  # where to get the files by hand
    part_url: str = ""  # where each file can be fetched from by its own name
    archive: Archive | None = None  # where they can be fetched from together

    def find(self, data_root: Path | None, cache: Path) -> Path | None:
        """The folder with the files: under the data root, or fetched into the cache before."""
        found = sources.find_folder(data_root, self.places, self.files) if data_root else None
        return found or sources.find_folder(cache / "raw", self.places[:1], self.files)

    def require_download(self, data_root: Path | None) -> None:
        """Raise NotHere unless the files can be fetched."""
        if not self.is_fetched:
            looked = f"none under {data_root}" if data_root else "no data root"
            expected = f"{self.name}: expected its published files, got {looked}"
            raise sources.NotHere(f"{expected}; {self.hint(data_root)}; {NO_FILES}")

    @property
    def is_fetched(self) -> bool:
        """Whether the files can be downloaded by `fetch`."""
        return bool(self.part_url or self.archive)

    def fetch(self, data_root: Path | None, cache: Path, progress: Progress) -> Path:
        """Download the files into the cache; the folder. UsageError."""
        self.require_download(data_root)
        folder = cache / "raw" / self.places[0]
        if self.archive is not None and not self.part_url:
            progress("download", 0, 1)
            _fetch_archive(self.archive, folder)
            return folder
        hint = f"{self.hint(data_root)}; {NO_FILES}"
        for done, file in enumerate(self.files):
            progress("download", done, len(self.files))
            if not (folder / file).is_file():
                url = f"{self.part_url}/{file}"
                sources.download(url, folder / file, hint)
        return folder

    def hint(self, data_root: Path | None) -> str:
        """Where to put the files, as a message says it."""
        place = f"{data_root}/{self.places[0]}"
        if data_root is None:
            place = f"{self.places[0]} in a data root (--data-root or RINGSAGE_DATA)"
        source = f" from {self.url}" if self.url else ""
        return f"put {self.files[0]} and its companions{source} into {place}"


def _fetch_archive(archive: Archive, folder: Path) -> None:
    """Write the files of an archive into `folder`, where it may lie already. Raises NotHere."""
    path = folder / archive.url.rpartition("/")[2]
    if not path.is_file():
        hint = f"put that file into {folder}, {NO_FILES}"
        sources.download(archive.url, path, hint, archive.most_bytes)
    try:
        if (size := path.stat().st_size) > archive.most_bytes:
            raise ValueError(f"expected at most {archive.most_bytes:,} bytes, got {size:,}")
        parts = archive.read(path.read_bytes())
    except ValueError as error:
        raise sources.NotHere(f"{path}: {error}; delete it, {NO_FILES}") from None
    sources.unpack(path, parts)


def _planetoid(name: str, folder: str, what: str) -> Published:
    places = [f"{above}{folder}/raw" for above in ("planetoid/", "Planetoid/", "")]
    places += [f"{name}/raw", f"planetoid/{name}/raw", folder, name]
    files = tuple(planetoid.file_names(name))
    read_by, url = planetoid.READER, planetoid.URL
    return Published(name, what, read_by, tuple(places), files, planetoid.convert, url, url)


def _ogb(name: str, what: str) -> Published:
    layout = ogb_raw.LAYOUTS[name]
    places = tuple(dict.fromkeys((name.replace("-", "_"), name, f"ogb/{name.replace('-', '_')}")))
    files = tuple(layout.files())
    archive = Archive(snap.URL, snap.MOST_BYTES, snap.ogb_files) if name == "cit-hepth" else None
    return Published(
        name, what, ogb_raw.READER, places, files, ogb_raw.convert, layout.url, archive=archive
    )


PUBLISHED = {
    entry.name: entry
    for entry in (
        _planetoid("cora", "Cora", "2 708 papers, 7 classes; the public split (140 labels)"),
        Published(
            "cora-linqs",
            "the same papers with the direction of citations; a split of its own",
            linqs.READER,
            ("linqs-cora/raw/cora", "linqs-cora", "cora", "cora-linqs", "cora/raw"),
            linqs.FILES,
            linqs.convert,
            linqs.URL,
            archive=Archive(linqs.URL, linqs.MOST_BYTES, linqs.files_in),
        ),
        _planetoid("citeseer", "CiteSeer", "3 327 papers, 6 classes; the public split"),
        _planetoid("pubmed", "PubMed", "19 717 papers, 3 classes; the public split"),
        _ogb("ogbn-arxiv", "169 343 papers, 40 classes; split by year"),
        _ogb("ogbn-products", "2.4 million products bought together, 47 classes"),
        _ogb("ogbn-papers100M", "111 million papers, 172 classes; split by year"),
        _ogb("ogbl-citation2", "2.9 million papers; two references of each of the newest held out"),
        _ogb("cit-hepth", "27 770 papers of high-energy physics; no features, no labels"),
    )
}
FALLBACKS = {"cora": "cora-linqs"}
