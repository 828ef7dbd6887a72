"""What an experiment will need before it runs: sizes, memory, time, machines."""
