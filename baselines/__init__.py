"""What a speed-up is measured against: the same model in one process, or spread otherwise."""
