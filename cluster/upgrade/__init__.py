"""From one face model to another while searches go on; see ARCHITECTURE.md, "Model upgrade"."""
