"""Who and what: records, photos, faces, tombstones and the change log, in SQL."""
