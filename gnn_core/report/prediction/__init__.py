"""What more ranks than were there would do: a step, an allreduce that was measured, a formula."""
