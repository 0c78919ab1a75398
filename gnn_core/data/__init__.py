"""The left end of the flow: published files or a generator -> Graph -> sampler -> Batch."""
