"""What each rank used while it ran: files of the system, read by a thread, summed up small."""
