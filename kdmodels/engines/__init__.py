"""What runs a network: PyTorch or OpenVINO, by one interface."""
