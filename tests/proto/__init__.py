"""The committed stubs are what the .proto files say."""
