"""What web and worker processes both do with a generation: queue it, settle it, name its ends."""
