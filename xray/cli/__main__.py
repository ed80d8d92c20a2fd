"""``python -m xray.cli`` is the same as ``xray``."""

from xray.cli import main

main()
