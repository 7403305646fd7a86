"""Speed and memory of networks and clusterings on this machine."""
