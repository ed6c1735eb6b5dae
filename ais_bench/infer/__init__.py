"""The import paths of the API guide. This package has only names."""
