"""The formats that a trained network is exported to; see `formats.FORMATS`."""
