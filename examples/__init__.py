"""Seven jobs from beginning to end, each with cylstm and, in `keras`, with Keras: `python -m examples.forecast`."""
