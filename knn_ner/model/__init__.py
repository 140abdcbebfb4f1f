"""Encoders and taggers: loading, training, hidden states."""
