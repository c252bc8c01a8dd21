"""Models that other programs wrote."""
