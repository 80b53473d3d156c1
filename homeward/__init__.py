"""What every part of Homeward shares: types, identifiers, errors, settings, clock, telemetry."""
