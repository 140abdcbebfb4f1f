"""A tagger in use: texts in, entities out, with the neighbours that decided them.

`texts` splits what is given into words, `entities` is what comes out, `neighbours` weighs what each
neighbour had in a decision, and `tagger` is `KnnTagger`, which puts them together.
"""
