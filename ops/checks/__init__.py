"""The checks of `inkstream doctor`, one module for each subject."""
