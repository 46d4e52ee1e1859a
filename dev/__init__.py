"""The local platform and sample traffic for it: what a developer starts, never what production imports."""
