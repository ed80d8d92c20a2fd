"""Writing a new plugin package from the template beside this file.

The template's files are those of a plugin; ``TEMPLATE`` in their names and texts stands for the plugin's name in Python
(``price_check``), ``template-dashed`` for its name in packages (``price-check``) and ``TemplateClass`` for its class
(``PriceCheck``).
"""

from __future__ import annotations

import keyword
import re
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from xray.exceptions import XRayError
from xray.plugins import installed

_FORM = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*\Z")


def write_plugin(name: str, folder: Path | None = None) -> Path:
    """Write a new plugin package.

    Args:
        name: The plugin's name: lower-case words joined by ``-``; a beginning ``xray-`` is left out.
        folder: Where to write it; ``xray-NAME`` in the current folder by default. It must not exist, or be empty.

    Returns:
        The folder.

    Raises:
        XRayError: The name cannot be, is taken by a stage type, or the folder has something in it.
    """
    word = name.removeprefix("xray-").removeprefix("xray_")
    dashed, module = word.replace("_", "-"), word.replace("-", "_")
    if not _FORM.match(word) or keyword.iskeyword(module):
        raise XRayError(
            f"{name!r} is no name for a plugin.", code="bad_name", hint="Write lower-case words: price-check."
        )
    if module in installed().stage_types:
        raise XRayError(f"There is a stage type '{module}' already.", code="name_taken", hint="Take another name.")
    target = Path(f"xray-{dashed}") if folder is None else folder
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise XRayError(f"{target} is there already, with something in it.", code="folder_taken")
    class_name = "".join(part.capitalize() for part in module.split("_"))
    words = {"TEMPLATE": module, "template-dashed": dashed, "TemplateClass": class_name}
    _write(resources.files(__name__) / "package", target, words)
    return target


def _write(source: Traversable, target: Path, words: dict[str, str]) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for entry in source.iterdir():
        if entry.name == "__pycache__":
            continue
        place = target / _filled(entry.name.removesuffix(".tmpl"), words)
        if entry.is_dir():
            _write(entry, place, words)
        else:
            place.write_text(_filled(entry.read_text(encoding="utf-8"), words), encoding="utf-8")


def _filled(text: str, words: dict[str, str]) -> str:
    for word, meant in words.items():
        text = text.replace(word, meant)
    return text
