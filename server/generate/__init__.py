"""What only a worker runs: owning generations, writing their answers and their logs."""
