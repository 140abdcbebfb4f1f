"""Entities counted over words and over pieces, and the F1 of every knn_weight at once."""
