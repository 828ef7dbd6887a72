"""What happens to an update on its way from a client to the server.

Below the experiment's schema, which has the settings: a channel knows no method and no network.
"""
