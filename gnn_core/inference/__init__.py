"""From a checkpoint to answers: classes, logits, embeddings and missing citations, in a file."""
