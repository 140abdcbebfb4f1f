"""kNN-NER: named entity recognition with nearest neighbour search (Wang et al. 2022, arXiv 2203.17103)."""
