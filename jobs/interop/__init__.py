"""Files made elsewhere: tables, arrays and pickles read strictly, features joined by name."""
