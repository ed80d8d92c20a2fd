"""Examples that newcomers read and run: three pipelines, decorated as anybody's would be, and a guided demo.

``flights``      rebooks passengers of cancelled flights; its candidates are frozen dataclasses (real public data)
``films``        recommends films to viewers; its candidates are plain dicts (real public data)
``competitors``  finds a product's competitor, in a healthy version and in one with a planted fault
``demo``         what ``xray demo`` does: runs all three, then finds the fault by questions alone

``data`` reads the public data; ``service`` and ``walkthrough`` are the demo's parts. Each pipeline runs by itself too:
``python -m xray_examples.flights``.
"""
