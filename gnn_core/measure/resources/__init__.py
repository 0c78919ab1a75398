"""Resources that each rank used: read from the system by a thread, kept as a short series."""
