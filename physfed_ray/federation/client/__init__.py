"""What a client does, and the host that runs it: train, keep its private state, evaluate, serve."""
