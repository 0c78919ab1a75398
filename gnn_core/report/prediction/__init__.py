"""Predicts more ranks than were measured: from a step, a measured allreduce and a formula."""
