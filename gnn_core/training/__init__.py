"""What every trainer does around its steps: join, agree, tell, evaluate, save, stop, record.

A framework gives a `Framework` and its `Learner` (see `learner`); the rest of a run is here, once.
"""
