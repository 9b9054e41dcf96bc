"""Several worker processes that serve HTTP, and the model process with the models, the edits and the store.

A worker only passes requests on: it has sockets and no model, so its memory is small and does not grow with
the edits. State about all requests together (rates of API keys, counts, recent requests) is kept in the model
process. They communicate over a Unix socket that only this user may open.

    client ──▶ worker (worker_app.py: /v1 by its own data plane, all other paths relayed)
                 │ remote_engine.py    API keys, decisions, answers, earlier responses
                 │ request_reports.py  finished requests
                 ▼
               model process (rpc_server.py), which starts and replaces the workers (host.py, supervisor.py)
"""
