"""From a checkpoint to a file that other programs run: ONNX, OpenVINO, a program of torch.export."""
