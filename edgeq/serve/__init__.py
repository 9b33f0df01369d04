"""``edgeq serve``: bundles behind HTTP.

One process, one event loop, and for each bundle one thread that runs it. Requests that arrive together run together,
and a lone one waits for nothing: a thread that is free takes whatever is there. Generated texts join and leave a
running batch token by token.

``limits`` what a request may ask; ``schemas`` the bodies; ``text_queue`` and ``generation_queue`` the threads;
``models`` bundles by name; ``metrics`` Prometheus' figures; ``app`` the routes; ``completions`` answers of generated
texts; ``server`` sockets and signals.
"""
