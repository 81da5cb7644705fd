"""A trained network in the forms of others: safetensors, torch.export, ONNX, Hugging Face."""
