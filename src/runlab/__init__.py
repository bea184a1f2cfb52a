"""The engine: trains any LightningModule on any LightningDataModule, with runs that can be resumed and trusted."""
