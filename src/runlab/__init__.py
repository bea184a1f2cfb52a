"""A research engine: trains any LightningModule on any LightningDataModule, repeatably."""
