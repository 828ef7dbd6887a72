"""The federation: flat parameters, hosts, parameter server, rounds, checkpoints."""
