"""What a quantized model does while it runs: rounding of activations, keys and values, and changes of layers' inputs."""
