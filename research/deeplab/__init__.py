"""DeepLab v1 to v3+ for TensorFlow 2 and Keras 3."""

import os

# TensorFlow's native log greets machines without a GPU with error messages;
# whoever wants them sets the variable to 0.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
