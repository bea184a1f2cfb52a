"""The engine: reliable, fast runs of any LightningModule on any data."""
