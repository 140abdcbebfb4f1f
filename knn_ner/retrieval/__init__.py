"""From stored hidden states to tags: datastore, search, vote, and the mix with the tagger.

`manifest`, `datastore` (reading), `writer` and `shard_writer` know the files; `similarity`,
`candidates` and `search` find neighbours; `vote` makes a distribution of them; `interpolation`
mixes. None knows anything of text or of models.
"""
