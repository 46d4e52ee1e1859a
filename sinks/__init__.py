"""Where it goes: the stores, and what each of them holds."""
