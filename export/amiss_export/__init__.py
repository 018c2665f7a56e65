"""The common ground: bundle, decision rule and decoding of inputs, one implementation of each."""
