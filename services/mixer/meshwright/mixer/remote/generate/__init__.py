"""`meshwright adapter gen`: what an adapter of another process needs, from the proto file of its template.

In place of the original's mixgen: the handler service and its messages, the documents of kinds template and adapter,
and a server in Python that runs.
"""
