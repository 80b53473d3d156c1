"""From templates to a candidate list: the gallery that keeps them and the indexes that search them."""
