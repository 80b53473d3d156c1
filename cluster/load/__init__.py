"""Bulk load: an archive of photos, exactly once, part by part."""
