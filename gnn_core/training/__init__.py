"""What every trainer does around its steps: join, agree, evaluate, save, stop, record.

`job` goes from the command line to the record; `trainer` through the epochs; a framework brings a
`World` (see `world`), a `Learner` (see `learner`) and the function that builds a run.
"""
