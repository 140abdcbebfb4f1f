"""Files to sentences, and sentences to word pieces and back. Knows nothing of models."""
