"""The import paths of the API guide: names only."""
