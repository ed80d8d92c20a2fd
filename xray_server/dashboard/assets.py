"""The dashboard's own files, and Plotly's script out of its installed package: kept by browsers for good.

The address of a file has a digest over all of them, so that a new version has new addresses, and modules may import
each other by name.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import mimetypes
import re
from importlib.resources import files
from pathlib import Path

import zstandard
from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

router = APIRouter(include_in_schema=False)

_FOLDER = Path(str(files("xray_server.dashboard"))) / "static"
_FOR_GOOD = "public, max-age=31536000, immutable"
_TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}


class Asset:
    """One file, compressed once for each encoding that is asked for.

    Args:
        path: Where it lies.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._encoded: dict[str, bytes] = {}
        self._lock = asyncio.Lock()
        self.media_type = _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"

    async def encoded(self, encoding: str) -> bytes:
        """The file's bytes.

        Args:
            encoding: ``zstd``, ``gzip`` or ``identity``.
        """
        async with self._lock:
            if encoding not in self._encoded:
                self._encoded[encoding] = await asyncio.to_thread(_encode, self._path, encoding)
            return self._encoded[encoding]


def _encode(path: Path, encoding: str) -> bytes:
    raw = path.read_bytes()
    if encoding == "zstd":
        return zstandard.ZstdCompressor(level=12).compress(raw)
    return gzip.compress(raw, 6, mtime=0) if encoding == "gzip" else raw


def _digest(paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


_PATHS = sorted(path for path in _FOLDER.iterdir() if path.is_file())
_ASSETS = {path.name: Asset(path) for path in _PATHS}
DIGEST = _digest(_PATHS)


def asset_url(name: str) -> str:
    """The address of one of the dashboard's files.

    Raises:
        KeyError: There is no such file.
    """
    if name not in _ASSETS:
        raise KeyError(name)
    return f"/static/{DIGEST}/{name}"


def _plotly_path() -> Path:
    return Path(str(files("plotly"))) / "package_data" / "plotly.min.js"


def _plotly_version() -> str:
    """The version of the script, which is not that of the package."""
    with _plotly_path().open(encoding="utf-8") as script:
        found = re.search(r"plotly\.js v([0-9.]+)", script.read(400))
    return found[1] if found else "unknown"


PLOTLY_URL = f"/static/plotly-{_plotly_version()}.min.js"
_PLOTLY = Asset(_plotly_path())


@router.get(PLOTLY_URL)
async def plotly(request: Request) -> Response:
    """Plotly's script."""
    return await _served(request, _PLOTLY, _FOR_GOOD)


@router.get("/static/{digest}/{name}")
async def static(digest: str, name: str, request: Request) -> Response:
    """One of the dashboard's files; under an older digest the file as it is now, for a page that was open before."""
    found = _ASSETS.get(name)
    if found is None:
        raise HTTPException(404)
    return await _served(request, found, _FOR_GOOD if digest == DIGEST else "no-cache")


async def _served(request: Request, asset: Asset, cache: str) -> Response:
    accepted = {word.split(";")[0].strip() for word in request.headers.get("accept-encoding", "").split(",")}
    encoding = next((each for each in ("zstd", "gzip") if each in accepted), "identity")
    headers = {"Cache-Control": cache, "Vary": "Accept-Encoding", "X-Content-Type-Options": "nosniff"}
    if encoding != "identity":
        headers["Content-Encoding"] = encoding
    return Response(await asset.encoded(encoding), headers=headers, media_type=asset.media_type)
