"""The common ground: the bundle, the decision rule and the decoding of inputs, one implementation of each."""
