"""Several processes that serve HTTP, and one with the models, the edits and the store, which they ask.

A worker has what passes requests on: sockets, and no model, so its memory is small and does not grow with the
edits. What has to be known of all requests together (rates of API keys, counts, the memory of decisions) is
in the model process. They talk over a Unix socket, which only this user may open.

    client ──▶ worker (proxying.py: the data plane, and all other paths relayed)
                 │ asking.py        decisions, answers, API keys, finished requests
                 ▼
               model process (calls.py), which starts and replaces the workers (supervising.py)
"""
