"""GraphSAGE in TensorFlow and Keras under `tf.distribute`, beside the Horovod trainer."""
