"""Where photo bytes live: one small protocol, a folder and any S3."""
