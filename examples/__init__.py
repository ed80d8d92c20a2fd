"""Examples that newcomers read and run: pipelines, instrumented as anybody's would be, and a guided demo.

``flights``         rebooks passengers of cancelled flights; its candidates are frozen dataclasses (real public data)
``films``           recommends films to viewers; its candidates are plain dicts (real public data)
``competitors``     finds a product's competitor, in a healthy version and in one with a planted fault
``categorisation``  puts products into categories: several scores and checks, and a selection
``listing``         improves titles with a (stand-in) language model: guardrails whose reasons are said from inside
``rag``             answers questions from this repository's documentation, in ``with`` blocks, plain and async
``history``         three weeks of a pipeline's past, built by hand: what trends and comparisons are for
``demo``            what ``xray demo`` does: runs the first three, then finds the fault by questions alone

``data`` reads the public data; ``service`` and ``walkthrough`` are the demo's parts. Each pipeline runs by itself too:
``python -m xray_examples.flights``.
"""
