"""Templates to candidates: the Milvus gallery and exact search."""
