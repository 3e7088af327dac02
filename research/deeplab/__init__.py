"""DeepLab v1 to v3+ for TensorFlow 2 and Keras 3."""
