"""Order and nothing else.

Importing any flow in a process that a worker started for a run takes that run's lock first, before anything
heavy is loaded: see so8t/fence.py.
"""

from so8t import fence

fence.enter()
