"""Other people's files: tables, arrays and pickles read strictly, features joined by name."""
