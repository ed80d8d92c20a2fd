"""The dashboard: pages over what the service holds, rendered here, with no build of scripts and no network.

A page is one file (``runs.py``: its routes and what it reads) and one template; what it shows comes from the functions
that the API uses. ``rendering.py`` makes responses, ``links.py`` addresses, ``filters.py`` text, ``colours.py``
colours, ``figures.py`` charts, ``forms.py`` reads parameters. ``templates/base.html`` is the frame of every page,
``templates/parts.html`` has what pages are put together from, ``static/style.css`` the tokens of their look.
"""
