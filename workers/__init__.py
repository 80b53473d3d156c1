"""Photo to templates: decode, detect, align, embed, quality, the pipeline and its Ray actor."""
