"""Load for a gateway, and what it measures. Nothing here runs while the gateway serves."""
