"""What is done by itself about a fault, beyond one more try: room, network, memory, divergence, damaged inputs."""
