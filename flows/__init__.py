"""Order and nothing else.

Importing any flow in a process that a worker started for a run takes that run's lock first, before anything
heavy is loaded: see so8t/fence.py.
"""

from so8t import fence

fence.enter()

# What `so8t run --flow` may run: name of the Prefect flow, and of its deployment.
FLOWS = {"pipeline": ("so8t-pipeline", "so8t"), "four_class": ("so8t-four-class", "so8t-four-class")}
