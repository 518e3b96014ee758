"""The classes of wendelin.core that tests need, under the names that databases know them by."""
