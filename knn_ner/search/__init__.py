"""From stored hidden states to tags: datastore, search, vote, and the mix with the tagger.

`manifest`, `folder` (lock, clean-up), `shard_reader` and `shard_writer` know the files; `datastore`
reads a store, `writer` builds one, `edit` changes one, `compaction` writes whole ones anew (both by
`copying`). `similarity`, `candidates` and `search` find neighbours; `vote` makes a distribution of
them; `interpolation` mixes, with the settings that `tuned` keeps. None knows anything of text or of
models.
"""
