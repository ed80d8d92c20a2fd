"""Write ``settings.md`` from the rows of ``xray.settings.SETTINGS``: ``python docs/make_settings.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from xray.settings import SETTINGS

PAGE = Path(__file__).parent / "settings.md"

HEAD = """\
# Settings

The SDK takes a setting from `xray.configure(name=value)`, else from its environment variable, else the default holds.
A variable that cannot be read warns, and the default holds; an unknown name or an impossible value given to
`configure` raises `xray.XRayError`. `xray settings` prints what is in force.

```python
import xray

xray.configure(environment="staging", capture="sampled", max_candidates=20_000)
```

`python docs/make_settings.py` writes this page from `xray/settings.py`.

| setting | variable | default | unit | what it does |
| --- | --- | --- | --- | --- |
"""


def page() -> str:
    """The page as it has to be."""
    rows = [
        f"| `{row.name}` | `{row.variable}` | {_shown(row.default)} | {row.unit} | {_in_table(row.help)} |\n"
        for row in SETTINGS
    ]
    return HEAD + "".join(rows)


def _shown(value: Any) -> str:
    if value is None or value == ():
        return ""
    return f"`{int(value) if isinstance(value, bool) else value}`"


def _in_table(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
